"""From a network's output to the noise ε, where it predicts the velocity v instead.

With x_t = α x_0 + σ ε and α² + σ² = 1, v = α ε − σ x_0, so that ε = α v + σ x_t (Salimans & Ho
2022). Two predictions at the same x_t therefore differ by Δε = α Δv: arithmetic on differences of
noise needs α alone. Schedulers that scale the model input (Euler) hand the network this same x_t.
"""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from spqr_checks.errors import UserError

_BY_TIMESTEP = (DDIMScheduler, DDPMScheduler, PNDMScheduler)
_BY_SIGMA = (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)


def check_scheduler(scheduler: Any) -> None:
    """UserError unless the noise can be told from the network's output under this scheduler."""
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type")
    known = type(scheduler) in (*_BY_TIMESTEP, *_BY_SIGMA)
    # diffusion of EDM and flow matching has no such schedule
    discrete = hasattr(scheduler, "alphas_cumprod")
    flow = bool(scheduler.config.get("use_flow_sigmas"))
    if kind not in ("epsilon", "v_prediction") or not discrete or flow:
        raise UserError(
            f"guidance needs predictions of noise or velocity; {name} has prediction type {kind!r}"
            f"{' on flow sigmas' if flow else ''}"
        )
    if kind == "v_prediction" and not known:
        names = ", ".join(sorted(c.__name__ for c in (*_BY_TIMESTEP, *_BY_SIGMA)))
        raise UserError(
            f"guidance cannot turn the velocities of {name} into noise; use one of {names}"
        )


def noise_per_output(scheduler: Any, evaluation: int) -> float:
    """Δε per difference of the network's outputs: 1 for noise, α of this evaluation for velocity.

    α is the one with which the scheduler itself reads the output.
    """
    if scheduler.config.prediction_type == "epsilon":
        return 1.0
    if type(scheduler) in _BY_TIMESTEP:
        t = int(scheduler.timesteps[evaluation])
        return float(scheduler.alphas_cumprod[t] ** 0.5)
    sigma = float(scheduler.sigmas[evaluation])
    return float((1 + sigma**2) ** -0.5)
