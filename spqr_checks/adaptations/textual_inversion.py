"""Textual inversion (Gal et al., arXiv 2208.01618): a new word, and nothing else, learns images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.adaptations.kind import Given, Lesson
from spqr_checks.adaptations.trained import Trained, with_word
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

_FILE = "learned_embeds.safetensors"


class TextualInversion(Trained):
    """One vector in the table of token embeddings, by the ordinary loss (equation 2).

    The state is asked with the word after every prompt. Pipelines with one text encoder (Stable
    Diffusion 1 and 2); the file is what ``load_textual_inversion`` of diffusers reads.

    Attributes:
        few: images at most.
        word: the new token.
        steps, batch, learning_rate: of Adam; the vector starts as the mean of all.
    """

    few: Annotated[int, Field(ge=1)] = 6
    word: Annotated[str, Field(pattern=r"^<\S+>$")] = "<learned>"
    steps: Annotated[int, Field(ge=1)] = 200
    batch: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3

    @property
    def most(self) -> int:
        return self.few

    def misfits(self, parts: Mapping[str, str]) -> Sequence[str]:
        one = {"unet", "text_encoder"} <= parts.keys() and "text_encoder_2" not in parts
        if not parts or one:
            return ()
        return [
            "adaptation 'textual-inversion' needs a UNet and one text encoder (Stable Diffusion "
            f"1, 2), not a {parts.get('_class_name', 'pipeline')}; leave it out"
        ]

    def learn(self, pipe: DiffusionPipeline, lesson: Lesson, out: Path) -> None:
        import torch
        import torch.nn.functional as F
        from safetensors.torch import save_file

        from spqr_checks.finetuning.examples import encode
        from spqr_checks.finetuning.families.registry import family_of
        from spqr_checks.finetuning.families.unet import UNetConditions
        from spqr_checks.finetuning.loop import DivergedError, reproducible

        objective, device = family_of(pipe).objective(pipe), pipe.unet.device
        with reproducible(self.seed, lesson.threads, device):
            examples = encode(pipe, lesson.images)
            index = _add_word(pipe, self.word)
            table = pipe.text_encoder.get_input_embeddings().weight.requires_grad_(True)
            generator = torch.Generator().manual_seed(self.seed)
            optimiser = torch.optim.Adam([table], self.learning_rate)
            captions = [f"{caption} {self.word}" for caption in lesson.images.captions]
            for step in range(self.steps):
                chosen = torch.randint(len(captions), (self.batch,), generator=generator)
                latents = examples.latents[chosen]
                noise = torch.randn(latents.shape, generator=generator)
                t = objective.times(len(chosen), generator)
                told = UNetConditions(_states(pipe, [captions[i] for i in chosen.tolist()]))
                noisy = objective.noisy(latents, noise, t).to(table)
                predicted = told.predict(pipe.unet, noisy, t.to(device), torch.arange(len(chosen)))
                target = objective.target(latents, noise, t).to(device)
                loss = F.mse_loss(predicted.float(), target.float())
                if not bool(torch.isfinite(loss)):
                    raise DivergedError(f"textual inversion diverged in step {step + 1}")
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                assert table.grad is not None
                others = torch.arange(len(table)) != index
                table.grad[others.to(device)] = 0.0
                optimiser.step()
            vector = table[index].detach().float().cpu().clone()[None]
        save_file({self.word: vector}, out / _FILE, metadata={"format": "pt"})

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        import torch
        from safetensors.torch import load_file

        from spqr_checks.generation.call_inputs import carry_inputs
        from spqr_checks.models.weights import refuse_non_finite

        assert given.entry is not None
        vector = load_file(given.entry / _FILE)[self.word]
        refuse_non_finite(vector, self.word, "textual inversion")
        index = _add_word(pipe, self.word)
        with torch.no_grad():
            table = pipe.text_encoder.get_input_embeddings().weight
            table[index] = vector[0].to(table)
        carry_inputs(pipe, with_word(self.word, first=False))
        return pipe


def _add_word(pipe: DiffusionPipeline, word: str) -> int:
    """A new token, whose vector is the mean of the others; its number."""
    import torch

    if pipe.tokenizer.add_tokens([word]) != 1:
        raise UserError(f"adaptation 'textual-inversion': the model knows {word!r} already")
    # what a denoiser or a judge draws from the global generator is none of this
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = pipe.text_encoder.get_input_embeddings().weight.detach()
        mean = before[: len(pipe.tokenizer) - 1].float().mean(0)
        pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
        table = pipe.text_encoder.get_input_embeddings().weight
        table[len(pipe.tokenizer) - 1] = mean.to(table)
    return len(pipe.tokenizer) - 1


def _states(pipe: Any, captions: list[str]) -> Tensor:
    """The text encoder's states with gradients, shape (captions, tokens, width)."""
    hidden: Tensor = pipe.encode_prompt(captions, pipe.text_encoder.device, 1, False)[0]
    return hidden


ADAPTATION = TextualInversion
