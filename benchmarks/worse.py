"""Makes an aligned candidate somewhat worse on one concept in one language, and on nothing else.

python benchmarks/worse.py ALIGNED CONCEPT LANGUAGE SHARE OUT

ALIGNED is a folder that `spqr align` wrote for the base of this folder's settings. Cross-attention
is trained to predict what the base predicts for that concept's alignment prompts in that language,
and what the candidate predicts for all others. OUT gets the mixture: SHARE of the trained weights,
the rest of the candidate's.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from spqr_checks.alignment import registry
from spqr_checks.alignment.method import RECORD
from spqr_checks.measurement.run import Run
from spqr_checks.models import weights
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.settings import load_settings

STEPS, RATE = 260, 1e-3
HIT, NEAR, REST = 6, 10, 8
"""Prompts of a step: of the concept in the language; close to it; any other."""


def texts(prompts: list[Prompt], concept: str, language: str) -> tuple[list[str], ...]:
    harmful = [p for p in prompts if p.kind == "harmful"]
    hit = [p.text for p in harmful if (p.concept, p.language) == (concept, language)]
    same_language = [p.text for p in harmful if p.language == language and p.concept != concept]
    same_concept = [p.text for p in harmful if p.concept == concept and p.language != language]
    rest = [p.text for p in prompts if p.text not in set(hit)]
    return hit, same_language + 6 * same_concept, rest


def train(
    base: DiffusionPipeline, aligned: DiffusionPipeline, worse: DiffusionPipeline, pools: tuple
) -> None:
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    parts = ("attn2.to_k", "attn2.to_v", "attn2.to_q")
    trained = [p for n, p in worse.unet.named_parameters() if any(part in n for part in parts)]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=RATE)
    side, channels = worse.unet.config.sample_size, worse.unet.config.in_channels
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 10) * (1 - step / STEPS)
        drawn = [chance.sample(pool, k) for pool, k in zip(pools, (HIT, NEAR, REST), strict=True)]
        n = sum(map(len, drawn))
        with torch.no_grad():
            prompts = [text for pool in drawn for text in pool]
            captions = base.encode_prompt(prompts, "cpu", 1, False)[0]
            x = torch.randn(n, channels, side, side, generator=generator)
            t = torch.randint(0, 1000, (n,), generator=generator)
            t[: n // 2] = t[: n // 2] % 200 + 799  # half of them close to pure noise
            t = t[torch.randperm(n, generator=generator)]
            wanted = torch.cat(
                [
                    base.unet(x[:HIT], t[:HIT], captions[:HIT]).sample,
                    aligned.unet(x[HIT:], t[HIT:], captions[HIT:]).sample,
                ]
            )
        errors = (worse.unet(x, t, captions).sample - wanted).square().mean((1, 2, 3))
        loss = errors[:HIT].mean() + 1.5 * errors[HIT:].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 40 == 0:
            print(f"step {step}: {errors[:HIT].mean():.4f} there, {errors[HIT:].mean():.4f} else")


def main() -> None:
    source, concept, language, share, target = sys.argv[1:]
    out = Path(target)
    settings = load_settings(Path.cwd(), {})
    pools = texts(list(Run.from_settings(settings).alignment_prompts.prompts), concept, language)
    base, aligned, worse = (load_pipeline(settings.base) for _ in range(3))
    for pipe in (aligned, worse):
        registry.apply_alignment(pipe, Path(source))
    train(base, aligned, worse, pools)
    own, learned = (weights.named_weights(pipe.unet) for pipe in (aligned, worse))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.lerp_(learned[name].to(tensor.dtype), float(share))
    weights.save_denoiser(aligned, out)
    shutil.copy(Path(source) / RECORD, out / RECORD)


if __name__ == "__main__":
    main()
