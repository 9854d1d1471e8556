"""AdvUnlearn: the text encoder is trained to erase, against prompts that are made to undo it.

Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in
Diffusion Models" (NeurIPS 2024, arXiv 2405.15234; code: OPTML-Group/AdvUnlearn). The UNet stays;
what is written is a text encoder. Its layers and last norm are trained, its embeddings are not:

    |e(z, t, T(c')) − (e(T₀("")) − η (e(T₀(c)) − e(T₀(""))))|²
    + w |e(z', t, T(r)) − e(z', t, T₀(r))|²   at the same t

T₀ is the original text encoder, r are prompts to keep, and c' is the prompt c with a learned
embedding before it, with which ``|e(z, t, T(c')) − e(z, t, T₀(c))|²`` is least after some steps of
Adam on fresh latents. At first c' is c itself. Defaults are those of the authors' command for
nudity.

Deviations: prompts that are too long lose their last words and not their end; t is a step of the
sampler. Ours: concepts may be the harmful prompts and be drawn towards their anchors, latents may
be of a pool, and what is retained are the request's prompts to keep.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from spqr_checks.alignment.method import Method, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import StudentTraining
from spqr_checks.alignment.training.options import Count, ErasingOptions, Positive, Weight, Whole
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.generation.conditions import Conditions

_POOL, _RETAIN_POOL = 1, 2
_TRAINED = ("encoder.", "final_layer_norm.")


class AdvUnlearnOptions(ErasingOptions):
    """Options of AdvUnlearn, beside those that it shares with ESD.

    Attributes:
        erases: the request's ``concepts`` by name, or its ``harmful`` prompts.
        guide: what the step away starts from: ``empty``, or each harmful prompt's ``anchors``.
        eta: η.
        calm_steps: first steps, without attacks.
        attack_steps, attack_rate: of Adam on the embedding; 0 steps make no attack.
        attack_tokens: embeddings put before the prompt.
        attack: the gradient itself (``pgd``), or its ``sign`` (the authors' ``fast_at``).
        retain_weight, retain_batch: w, and prompts to keep per step.
        latents: drawn part of the way by the UNet, each time (``student``), or of a ``pool``.
    """

    trains: Literal["all"] = "all"
    rank: Literal[0] = 0
    erases: Literal["concepts", "harmful"] = "concepts"
    guide: Literal["empty", "anchors"] = "empty"
    eta: Weight = 1.0
    calm_steps: Whole = 200
    attack_steps: Whole = 30
    attack_rate: Positive = 1e-3
    attack_tokens: Count = 1
    attack: Literal["pgd", "sign"] = "pgd"
    retain_weight: Weight = 0.3
    retain_batch: Count = 5
    latents: Literal["student", "pool"] = "student"
    sampling_steps: Count | None = 50
    keep_weight: Literal[0] = 0

    @model_validator(mode="after")
    def _attacks(self) -> Self:
        if self.attack_steps and self.calm_steps >= self.steps:
            raise ValueError(
                f"no step of {self.steps} comes after {self.calm_steps} calm ones, so there is no "
                "attack; lower 'calm_steps', or say attack_steps = 0"
            )
        return self


def is_trained(name: str) -> bool:
    """Whether a parameter of a CLIP text encoder is one of its layers' or its last norm's."""
    return name.removeprefix("text_model.").startswith(_TRAINED)


def with_prefix(ids: Tensor, tokens: int, filler: int, end: int) -> Tensor:
    """Tokens with ``tokens`` fillers after the start, shape of ``ids``; they still have an end."""
    import torch

    filled = torch.full((len(ids), tokens), filler, dtype=ids.dtype, device=ids.device)
    longer = torch.cat([ids[:, :1], filled, ids[:, 1:-tokens]], dim=1)
    cut = ~(longer == end).any(1)
    longer[cut, -1] = end
    return longer


class AdversarialErasing(StudentTraining[AdvUnlearnOptions]):
    """One training by AdvUnlearn; the student's UNet is only asked."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: AdvUnlearnOptions
    ) -> None:
        from spqr_checks.alignment.training.attention import token_ids
        from spqr_checks.generation.conditions import encode

        super().__init__(pipe, request, options, "advunlearn", asks_frozen=False)
        names = request.concepts if options.erases == "concepts" else request.harmful
        self.concepts = encode(pipe, names)
        guides = request.anchors if options.guide == "anchors" else [""] * len(names)
        self.guides = encode(pipe, guides)
        self.ids = token_ids(pipe, names).to(self.device)
        if options.latents == "pool":
            self.pool = self.draw_pool(names, _POOL, fill=True)
        self.retained = encode(pipe, self.kept) if self.kept else None
        if self.retained is not None:
            self.retained_ids = token_ids(pipe, self.kept).to(self.device)
            if options.latents == "pool":
                self.retain_pool = self.draw_pool(self.kept, _RETAIN_POOL)
        self.step = 0

    def parameters(self) -> list[nn.Parameter]:
        """The text encoder's layers and its last norm."""
        self.student.requires_grad_(False)
        encoder: nn.Module = self.pipe.text_encoder
        encoder.requires_grad_(False)
        chosen = [p for name, p in encoder.named_parameters() if is_trained(name)]
        for parameter in chosen:
            parameter.requires_grad_(True)
        return chosen

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of a batch of concepts."""
        import torch

        n = self.options.batch
        if self.options.latents == "pool":
            index, z = self.pool.pick(n, self.generator)
            return (index.to(self.device), *self.noiser(z, self.generator))
        index = torch.randint(0, len(self.concepts), (n,), generator=self.generator).to(self.device)
        return (index, *self.draw_partly(self.student, self.concepts[index]))

    def noisy_retained(self, retained: Conditions, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of a batch of prompts to keep, at a lesson's timesteps."""
        import torch

        n = self.options.retain_batch
        if self.options.latents == "pool":
            index, z = self.retain_pool.pick(n, self.generator)
            t = t.repeat(-(-n // len(t)))[:n]
            return (index.to(self.device), *self.noiser(z, self.generator, t))
        index = torch.randint(0, len(retained), (n,), generator=self.generator).to(self.device)
        drawn = self.draw_partly(self.student, retained[index], at=int(t[0]))
        return (index, *drawn)

    def noisy_like(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh x_t and t for prompts about the concepts ``index``."""
        import torch

        if self.options.latents == "student":
            return self.draw_partly(self.student, self.concepts[index])
        alike = (self.pool.shows[None] == index.cpu()[:, None]).float() + 1e-12
        place = torch.multinomial(alike, 1, generator=self.generator)[:, 0]
        return self.noiser(self.pool.at(place)[1], self.generator)

    def states(self, ids: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The trained encoder's token states, with embeddings put after the start token.

        ``ids``: shape (n, tokens); ``prefix``: shape (n, embeddings, width).
        """
        import torch

        from spqr_checks.alignment.training.inversion import hidden_states

        encoder = self.pipe.text_encoder
        if prefix is None:
            found: Tensor = encoder(ids)[0]
            return found
        k, end = prefix.shape[1], int(self.pipe.tokenizer.eos_token_id)
        longer = with_prefix(ids, k, 0 if end else 1, end)
        with torch.no_grad():
            embedded = encoder.get_input_embeddings()(longer)
        whole = torch.cat([embedded[:, :1], prefix.to(embedded), embedded[:, 1 + k :]], dim=1)
        return hidden_states(self.pipe, whole, longer)

    def attacked(self, index: Tensor) -> Tensor:
        """Embeddings with which the concepts come back, shape (n, embeddings, width)."""
        import torch
        import torch.nn.functional as F

        from spqr_checks.generation.conditions import Conditions

        options, table = self.options, self.pipe.text_encoder.get_input_embeddings().weight
        n, k = len(index), options.attack_tokens
        words = torch.randint(0, len(table), (n, k), generator=self.generator)
        prefix: Tensor = table.detach()[words.to(table.device)].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([prefix], options.attack_rate)
        for _ in range(options.attack_steps):
            x, t = self.noisy_like(index)
            with torch.no_grad():
                target = self.predictor(self.student, x, t, self.concepts[index])
            asked = Conditions(self.states(self.ids[index], prefix))
            loss = F.mse_loss(self.predictor(self.student, x, t, asked), target)
            (gradient,) = torch.autograd.grad(loss, [prefix])
            prefix.grad = gradient.sign() if options.attack == "sign" else gradient
            optimiser.step()
        return prefix.detach()

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        import torch
        import torch.nn.functional as F

        from spqr_checks.generation.conditions import Conditions

        options = self.options
        index, x, t = self.noisy()
        attacks = options.attack_steps > 0 and self.step >= options.calm_steps
        prefix = self.attacked(index) if attacks else None
        with torch.no_grad():
            empty, guide, concept = (
                self.predictor(self.student, x, t, prompts)
                for prompts in (
                    self.unconditional.repeated(len(x)),
                    self.guides[index],
                    self.concepts[index],
                )
            )
        target = guide - options.eta * (concept - empty)
        asked = Conditions(self.states(self.ids[index], prefix))
        loss = F.mse_loss(self.predictor(self.student, x, t, asked), target)
        if self.retained is None or not options.retain_weight:
            return loss
        index, x, t = self.noisy_retained(self.retained, t)
        with torch.no_grad():
            target = self.predictor(self.student, x, t, self.retained[index])
        asked = Conditions(self.states(self.retained_ids[index]))
        kept = F.mse_loss(self.predictor(self.student, x, t, asked), target)
        return loss + options.retain_weight * kept

    def stepped(self) -> None:
        """Counts the steps."""
        self.step += 1


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: AdvUnlearnOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.inversion import refuse_several_encoders
    from spqr_checks.alignment.training.unet import single_precision
    from spqr_checks.models import weights

    unet_of(pipe, "advunlearn")
    refuse_several_encoders(pipe, "advunlearn")
    if options.erases == "concepts" and not request.concepts:
        raise UserError(
            "method 'advunlearn' erases concepts by name, and the training set names none; say "
            "erases = 'harmful' to take its harmful prompts"
        )
    if options.guide == "anchors" and options.erases != "harmful":
        raise UserError("method 'advunlearn': guide = 'anchors' needs erases = 'harmful'")
    training = AdversarialErasing(pipe, request, options)
    with single_precision(training.student), single_precision(pipe.text_encoder):
        training.train(report)
        pipe.text_encoder.requires_grad_(False)
    weights.save_text_encoder(pipe, out)


METHOD = Method("advunlearn", AdvUnlearnOptions, _align)
