"""What SalUn, EraseDiff and Scissorhands share: the concept is to be predicted as another prompt.

Images of harmful prompts are to be predicted under them as under another prompt, by the student
itself; images to retain keep the model by the diffusion loss. The authors load files of images;
here the base draws both kinds. Light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.distillation import Distillation, Lesson
from spqr_checks.alignment.training.options import Count, ErasingOptions, Trains, Weight
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.generation.conditions import Conditions

_FORGET_POOL, _RETAIN_POOL = 1, 2
Noised = tuple["Tensor", "Tensor", "Tensor", "Tensor"]
"""Numbers of the prompts, x_t, t, and the noise (or velocity) in x_t."""


class ForgettingOptions(ErasingOptions):
    """What the three can be told beside the options of all methods that erase.

    Attributes:
        rank: 0; they choose among weights, and train no adapter.
        pool: images that are drawn to forget, and as many to retain.
        pseudo: the prompt that concepts are to be predicted as; each harmful prompt's own anchor
            if not given.
        retain: images to retain, with their prompts: of the ``anchors``, as the authors have it,
            or of the prompts to ``keep``.
        retain_weight: of their diffusion loss.
    """

    rank: Literal[0] = 0
    trains: Trains = "all"
    start_guidance: Weight = 7.5
    batch: Count = 8
    pseudo: str = ""
    retain: Literal["anchors", "keep"] = "anchors"
    retain_weight: Weight = 1.0


OptionsT = TypeVar("OptionsT", bound=ForgettingOptions)


class Forgetting(Distillation[OptionsT]):
    """``w_f |e(x_t, c) − sg e(x_t, c')|² + w_r |ε − e(x'_t, c'')|²``, e always the student.

    x shows a harmful prompt c, which is to be predicted as c'; x' is an image to retain and c''
    its prompt. Raises UserError: there is nothing to retain.
    """

    forgets_in_order = False
    """Whether every step takes the first images of both pools, as loaders do that are begun anew
    for each batch."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        request: AlignmentRequest,
        options: OptionsT,
        method: str,
        *,
        asks_frozen: bool = False,
    ) -> None:
        from spqr_checks.generation.conditions import encode

        super().__init__(pipe, request, options, method, asks_frozen=asks_frozen)
        retained = request.anchors if options.retain == "anchors" else self.kept
        if not retained:
            raise UserError(
                f"method {method!r} retains prompts to keep, and the training set has none; say "
                "retain = 'anchors'"
            )
        n = len(request.harmful)
        self.pseudo = encode(pipe, [options.pseudo] * n if options.pseudo else request.anchors)
        self.retained = encode(pipe, retained)
        self.forget_pool = self.draw_pool(request.harmful, _FORGET_POOL, fill=True)
        self.retain_pool = self.draw_pool(retained, _RETAIN_POOL, fill=True)
        self.keep = self.prepare_keep()

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]

    def noisy(self, retains: bool = False) -> Noised:
        """A batch of images to forget, or to retain, noised."""
        import torch

        pool = self.retain_pool if retains else self.forget_pool
        if self.forgets_in_order:
            index, z = pool.at(torch.arange(self.options.batch) % len(pool))
        else:
            index, z = pool.pick(self.options.batch, self.generator)
        return (index.to(self.device), *self.noiser.with_truth(z, self.generator))

    def lesson(self) -> Lesson:
        """Harmful prompts, to be predicted as the student itself predicts the pseudo prompts."""
        import torch

        index, x, t, _ = self.noisy()
        with torch.no_grad():
            target = self.predictor(self.student, x, t, self.pseudo[index])
        return Lesson(self.harmful[index], x, t, target)

    def diffusion_loss(self, prompts: Conditions, noised: Noised) -> Tensor:
        """Mean squared error of the student's prediction at noised images under their prompts."""
        import torch.nn.functional as F

        index, x, t, truth = noised
        return F.mse_loss(self.predictor(self.student, x, t, prompts[index]), truth)

    def retaining(self) -> Tensor:
        """The diffusion loss of a batch to retain."""
        return self.diffusion_loss(self.retained, self.noisy(True))

    def forgetting(self) -> Tensor:
        """The lesson's weighted loss, and the preservation loss."""
        return super().loss()

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        loss = self.forgetting()
        if self.options.retain_weight:
            loss = loss + self.options.retain_weight * self.retaining()
        return loss

    def products(self, first: Tensor, second: Tensor) -> tuple[float, float, float]:
        """g₁·g₂, g₁·g₁ and g₂·g₂ of the gradients of two losses, which can still be descended."""
        import torch

        one, other = (
            torch.autograd.grad(loss, self.trained, retain_graph=True, allow_unused=True)
            for loss in (first, second)
        )
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
        return (
            sum(float((a * b).sum()) for a, b in pairs),
            sum(float(a.square().sum()) for a in one if a is not None),
            sum(float(b.square().sum()) for b in other if b is not None),
        )
