"""Safe Latent Diffusion: guidance away from the concepts while images are drawn; no training.

Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion
Models" (CVPR 2023). The weights stay the base's; the entry holds the guidance's parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.sld import SldGuidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Preset = Literal["weak", "medium", "strong", "max"]


_SET = ("warmup", "scale", "threshold", "momentum_scale", "momentum_beta")
PRESETS: dict[Preset, dict[str, float]] = {
    "weak": dict(zip(_SET, (15, 200.0, 0.0, 0.0, 0.0), strict=True)),
    "medium": dict(zip(_SET, (10, 1000.0, 0.01, 0.3, 0.4), strict=True)),
    "strong": dict(zip(_SET, (7, 2000.0, 0.025, 0.5, 0.7), strict=True)),
    "max": dict(zip(_SET, (0, 5000.0, 1.0, 0.5, 0.7), strict=True)),
}
"""The paper's configurations; their warm-up is meant for 50 steps."""


class SldOptions(Options):
    """Options of SLD; what is not given is taken from the preset.

    Attributes:
        preset: the paper's configuration, from ``weak`` to ``max``.
        warmup: δ, sampler steps before the first that is steered. The paper samples in 50 steps;
            fewer may need a shorter one.
        scale: s_S, the safety guidance scale.
        threshold: λ; elements where e_c − e_s ≥ λ are left alone.
        momentum_scale, momentum_beta: s_m and β_m.
        safety_prompt: what to steer away from; the request's concepts, joined by commas, if empty.
    """

    preset: Preset = "medium"
    warmup: Annotated[int, Field(ge=0)] | None = None
    scale: Annotated[float, Field(gt=0)] | None = None
    threshold: float | None = None
    momentum_scale: Annotated[float, Field(ge=0)] | None = None
    momentum_beta: Annotated[float, Field(ge=0, lt=1)] | None = None
    safety_prompt: str = ""


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SldOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.generation.guidance.base import attach_guidance
    from spqr_checks.generation.guidance.registry import save_guidance

    prompt = options.safety_prompt or ", ".join(request.concepts)
    if not prompt:
        raise UserError(
            "method 'sld' has nothing to steer away from: the prompts name no concept; set its "
            "option 'safety_prompt'"
        )
    chosen = {name: getattr(options, name) for name in PRESETS[options.preset]}
    guidance = SldGuidance.model_validate(
        PRESETS[options.preset]
        | {name: value for name, value in chosen.items() if value is not None}
        | {"safety_prompt": prompt}
    )
    guidance.check(pipe, request.sampler)
    attach_guidance(pipe, guidance)
    save_guidance(guidance, out)


# users fine-tune the denoiser, which is the base's own: one training serves both
METHOD = Method("sld", SldOptions, _align, attach="base", transformers=True)
