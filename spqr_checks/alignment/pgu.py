"""PGU: after an erasure, hardens it by steps that leave alone what retained prompts need.

After Aladawi et al., "Projected Gradient Unlearning for Text-to-Image Diffusion Models: Defending
Against Concept Revival Attacks" (arXiv 2604.21041), a step after an erasure. The core gradient
space of a linear layer is spanned by what it is given for retained prompts: the leading directions
of Σ x xᵀ that hold a share of it. What its matrix moves is projected on the complement,
``ΔW ← ΔW (I − M Mᵀ)``, so that for inputs within the space outputs stay as they were.

This is our reconstruction from the paper's abstract and what others say of its algorithm: that the
erasure is ESD's, that its loss goes on while steps are projected, that biases and norms stay, the
share of 0.9, and at which inputs the space is measured. What it cannot do: fine-tuning that is
not projected may leave the complement too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.alignment.esd import Erasure, EsdOptions
from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import Count, Positive, Share

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

_POOL = 4


class PguOptions(EsdOptions):
    """Options of ESD, whose erasure comes first, and of the hardening after it.

    Attributes:
        harden_steps, harden_rate: projected steps of Adam, and their learning rate.
        energy: share of the squared inputs that the core gradient space holds.
        inputs: images of prompts to keep that the inputs are measured on, each at a random t.
    """

    rank: Annotated[int, Field(ge=0, le=0)] = 0
    harden_steps: Count = 200
    harden_rate: Positive = 1e-5
    energy: Share = 0.9
    inputs: Count = 64


def core_space(gram: Tensor, energy: float) -> Tensor:
    """Orthonormal directions that hold a share of Σ x xᵀ, shape (in, directions).

    ``gram``: shape (in, in). The fewest leading eigenvectors whose eigenvalues sum to the share.
    """
    import torch

    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.clamp(min=0).flip(0), vectors.flip(1)
    held = values.cumsum(0) / values.sum().clamp(min=1e-30)
    n = min(int((held < energy).sum()) + 1, len(values)) if energy > 0 else 0
    leading: Tensor = vectors[:, :n]
    return leading


class Hardening(Erasure):
    """One training by PGU: ESD, and then its loss in projected steps."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: PguOptions
    ) -> None:
        super().__init__(pipe, request, options)
        self.settings = options
        texts = self.kept or request.anchors
        from spqr_checks.generation.conditions import encode

        self.retained, self.retained_pool = encode(pipe, texts), self.draw_pool(texts, _POOL)

    def trained_layers(self) -> dict[str, nn.Linear]:
        """The linear layers whose matrix is trained."""
        from torch import nn

        return {
            name: module
            for name, module in self.student.named_modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad
        }

    def spaces(self, layers: dict[str, nn.Linear]) -> dict[str, Tensor]:
        """The core gradient space of each layer, by its inputs for retained prompts."""
        import torch

        grams: dict[str, Tensor] = {}

        def watch(name: str) -> Any:
            def see(_module: nn.Module, inputs: Sequence[Any]) -> None:
                x = inputs[0].detach().flatten(0, -2).double()
                grams[name] = grams.get(name, torch.zeros((), dtype=x.dtype)) + (x.T @ x).cpu()

            return see

        hooks = [module.register_forward_pre_hook(watch(n)) for n, module in layers.items()]
        left = self.settings.inputs
        with torch.no_grad():
            while left > 0:
                n = min(left, self.request.sampler.batch)
                index, z = self.retained_pool.pick(n, self.generator)
                x, t = self.noiser(z, self.generator)
                self.predictor(self.student, x, t, self.retained[index.to(self.device)])
                left -= n
        for hook in hooks:
            hook.remove()
        return {name: core_space(gram, self.settings.energy) for name, gram in grams.items()}

    def finished(self) -> None:
        """Goes on with ESD's loss, in projected steps of matrices, and nothing else."""
        from spqr_checks.alignment.request import no_report
        from spqr_checks.alignment.training.options import TrainingOptions
        from spqr_checks.alignment.training.training import optimise

        layers = self.trained_layers()
        spaces = self.spaces(layers)
        self.student.requires_grad_(False)
        held = [
            (layer.weight, layer.weight.detach().clone(), spaces[name].to(layer.weight))
            for name, layer in layers.items()
        ]
        for weight, _, _ in held:
            weight.requires_grad_(True)

        def project() -> None:
            # Adam scales elements one by one, so that a projected gradient's step is none
            for weight, before, m in held:
                moved = weight.data - before
                weight.data.copy_(before + moved - (moved @ m) @ m.T)

        optimise(
            [parameter for parameter in self.student.parameters() if parameter.requires_grad],
            self.hardening,
            TrainingOptions(steps=self.settings.harden_steps),
            learning_rate=self.settings.harden_rate,
            report=no_report,
            stepped=project,
        )

    def hardening(self) -> Tensor:
        """ESD's loss alone; the projection is in the place of a preservation loss."""
        import torch.nn.functional as F

        lesson, _ = self.answered(self.lesson())
        predicted = self.predictor(self.student, lesson.x, lesson.t, lesson.prompts)
        return F.mse_loss(predicted, lesson.target)


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: PguOptions,
    out: Path,
    report: Report,
) -> None:
    Hardening(pipe, request, options).run(out, report)


METHOD = Method("pgu", PguOptions, _align)
