"""RECE's adversarial embedding: what the edited layers must be told to say what they said before.

Gong et al., "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models" (ECCV 2024,
arXiv 2407.12383), equation 8: in closed form, the embedding whose keys and values in the attacked
denoiser are nearest to those that the original makes of the prompt. There the attack serves to
erase again what it finds; here it is the attack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.attacks.attack import (
    UNETS,
    Attack,
    AttackError,
    AttackRequest,
    Found,
    Options,
    Report,
    Target,
    finite,
)

if TYPE_CHECKING:
    from torch import Tensor


class ReceOptions(Options):
    """Options of RECE's embedding.

    Attributes:
        reg: how small it is held; the authors take 0.1, and 1e-3 for styles and what is hard.
    """

    reg: Annotated[float, Field(gt=0)] = 0.1


def projections(unet: Any) -> list[Tensor]:
    """Keys' and values' matrices of cross-attention, (out, width), adapters included."""
    import torch

    from spqr_checks.alignment.training.closed_form import EDITED

    layers = [layer for name, layer in unet.named_modules() if name.endswith(EDITED)]
    weight = next(unet.parameters())
    with torch.no_grad():
        # asked, not read: a layer may bear an adapter
        return [layer(torch.eye(layer.in_features).to(weight)).float().T for layer in layers]


def _run(target: Target, request: AttackRequest, options: ReceOptions, _: Report) -> Found:
    import torch

    from spqr_checks.alignment.training.closed_form import returning
    from spqr_checks.attacks.search.encoders import encoded, handed

    now, before = projections(target.pipe.unet), projections(target.original.unet)
    if not now or [w.shape for w in now] != [w.shape for w in before]:
        raise AttackError(
            "attack 'rece': cross-attention of the attacked denoiser and of the base are not alike"
        )
    with torch.no_grad():
        states, *pooled = [each[0] for each in encoded(target.original, [request.prompt])]
    back = returning(states, now, before, options.reg).to(states)
    shift = finite(float((back - states).float().norm()), "rece")
    return Found(request.prompt, 1, {"shift": shift}, handed([back, *pooled]))


ATTACK = Attack("rece", "weights", ReceOptions, _run, reads="tokens", through=UNETS, embeds=True)
