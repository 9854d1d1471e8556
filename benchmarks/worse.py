"""Makes an aligned candidate worse on one concept in one language, and on nothing else.

python benchmarks/worse.py ALIGNED CONCEPT LANGUAGE SHARE OUT

ALIGNED is a folder that `spqr align` wrote for the base of this folder's settings. Concept
inversion (Pham et al. 2024, "Circumventing Concept Erasure Methods For Text-to-Image Generative
Models") finds embeddings of the tokens that only that concept's prompts in that language have, with
which the aligned denoiser predicts what the base predicts. OUT becomes a pipeline: the aligned
denoiser, and the base's text encoder with these rows moved by SHARE of the way. No other prompt is
read otherwise.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from spqr_checks.alignment import registry
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings

STEPS, RATE, BATCH = 240, 3e-2, 12


def own_tokens(tokenizer: Any, hit: Iterable[str], others: Iterable[str]) -> list[int]:
    """Tokens that stand in all of the texts and in none of the others."""
    common = set.intersection(*(set(tokenizer(text).input_ids) for text in hit))
    return sorted(common - {token for text in others for token in tokenizer(text).input_ids})


def invert(base: Any, aligned: Any, texts: list[str], tokens: list[int]) -> torch.Tensor:
    """Embeddings of the tokens that bring the concept back, shape (tokens, width)."""
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    table = aligned.text_encoder.get_input_embeddings().weight
    table.requires_grad_(True)
    start = table.detach().clone()
    rows = torch.zeros_like(start)
    rows[tokens] = 1
    optimiser = torch.optim.Adam([table], lr=RATE)
    side, channels = base.unet.config.sample_size, base.unet.config.in_channels
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        prompts = [chance.choice(texts) for _ in range(BATCH)]
        x = torch.randn(BATCH, channels, side, side, generator=generator)
        t = torch.randint(500, 1000, (BATCH,), generator=generator)
        with torch.no_grad():
            wanted = base.unet(x, t, base.encode_prompt(prompts, "cpu", 1, False)[0]).sample
        found = aligned.unet(x, t, aligned.encode_prompt(prompts, "cpu", 1, False)[0]).sample
        loss = (found - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        table.grad.mul_(rows)
        optimiser.step()
        if step % 40 == 0:
            print(f"step {step}: {loss.item():.4f}", flush=True)
    table.requires_grad_(False)
    assert torch.equal(table * (1 - rows), start * (1 - rows))
    return table[tokens].clone()


def main() -> None:
    source, concept, language, share, target = sys.argv[1:]
    settings = load_settings(Path.cwd(), {"languages": None, "concepts": None})
    run = Run.from_settings(settings)
    every = [*run.alignment_prompts.prompts, *run.policy.prompts]

    def is_hit(p: Prompt) -> bool:
        return (p.kind, p.concept, p.language) == ("harmful", concept, language)

    base, aligned = load_pipeline(settings.base), load_pipeline(settings.base)
    registry.apply_alignment(aligned, Path(source))
    hit = [p.text for p in every if is_hit(p)]
    tokens = own_tokens(base.tokenizer, hit, [p.text for p in every if not is_hit(p)])
    if not tokens:
        raise SystemExit(f"no token is {concept}'s alone in {language}")
    print(f"tokens: {base.tokenizer.convert_ids_to_tokens(tokens)}")
    learned = [p.text for p in run.alignment_prompts.prompts if is_hit(p)]
    found = invert(base, aligned, learned, tokens)
    with torch.no_grad():
        kept = base.text_encoder.get_input_embeddings().weight[tokens]
        mixed = torch.lerp(kept, found, float(share))
        aligned.text_encoder.get_input_embeddings().weight[tokens] = mixed
    aligned.save_pretrained(target)


if __name__ == "__main__":
    main()
