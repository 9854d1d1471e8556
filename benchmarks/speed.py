"""Images per second, seconds per fine-tuning step and peak memory, ours and plain diffusers'.

python benchmarks/speed.py --size sd15 --size sdxl --device cuda --dtype bfloat16
python benchmarks/speed.py --size tiny          # on any CPU, to see that it works

Ours and the plain way take turns in one process, on one pipeline with random weights. What was not
run is not reported: a part that fails ends the program with its error, and memory is reported only
where the device counts it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sized_pipelines import SIDES, SIZES, pipeline

from spqr_checks.choices import Profile, Sampler
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.generation.sampling import generate
from spqr_checks.models import adapters
from spqr_checks.settings import Settings

_PROMPT = "a photo of a red circle on a big house"
_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", action="append", choices=sorted(SIZES), required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tuning-batch", type=int, default=16)
    parser.add_argument("--tuning-steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if min(options.images, options.batch, options.steps, options.repeats) < 1:
        parser.error("--images, --batch, --steps and --repeats must be at least 1")
    if options.tuning_steps < 3:
        parser.error("--tuning-steps must be at least 3: the first ones warm up")
    rows = []
    for name in dict.fromkeys(name for size in options.size for name in SIZES[size]):
        pipe = pipeline(name, options.device, options.dtype)
        rows += [_drawing(name, pipe, options), _tuning(name, pipe, options)]
        del pipe
        gc.collect()
    found = {"machine": _machine(options), "options": vars(options) | {"json": None}, "rows": rows}
    print(_table(rows, found["machine"]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _drawing(name: str, pipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    side, n = SIDES[name], options.images
    prompts = [f"{_PROMPT} {i}" for i in range(n)]
    sampler = Sampler(
        steps=options.steps, guidance=7.5, height=side, width=side, batch=options.batch
    )

    def ours() -> int:
        return len(generate(pipe, prompts, list(range(n)), sampler))

    def plain() -> int:
        drawn = 0
        for start in range(0, n, options.batch):
            part = prompts[start : start + options.batch]
            generator = torch.Generator(options.device).manual_seed(start)
            size = {"height": side, "width": side}
            given = {"num_inference_steps": options.steps, "guidance_scale": 7.5} | size
            drawn += len(pipe(part, generator=generator, **given).images)
        return drawn

    for warm_up in (ours, plain):
        warm_up()
    times, peaks = _in_turn({"ours": ours, "plain": plain}, options, expected=n)
    return _row(name, "images/s", {key: n / value for key, value in times.items()}, peaks)


def _tuning(name: str, pipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of the profile `lite`, encoding of the data left out."""
    side = SIDES[name]
    images = [
        Image.new("RGB", (side, side), (40 * i % 255, 90, 120)) for i in range(options.tuning_batch)
    ]
    data = CaptionedImages(images, [f"{_PROMPT} {i}" for i in range(len(images))])
    lite = Settings().profile["lite"]
    profile = lite.model_copy(update={"steps": options.tuning_steps, "batch": len(images)})
    # each returns the seconds of one step, without the two that warm up
    ways = {
        "ours": lambda: _our_step(pipe, data, profile),
        "plain": lambda: _step(pipe, data, profile),
    }
    seconds: dict[str, list[float]] = {key: [] for key in ways}
    peaks: dict[str, float | None] = {}
    for _ in range(options.repeats):
        for key, way in ways.items():
            _forget(options.device)
            seconds[key].append(way())
            peaks[key] = _peak(options.device)
    speeds = {key: 1 / statistics.median(values) for key, values in seconds.items()}
    return _row(name, f"lite steps/s, batch {len(images)}", speeds, peaks)


def _our_step(pipe: Any, data: CaptionedImages, profile: Profile) -> float:
    ends: list[float] = []

    def report(_step: int, _of: int, _loss: float) -> None:
        _wait(pipe)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer.finetune(
            pipe,
            data,
            profile,
            0,
            Path(folder),
            torch.get_num_threads(),
            base_digest="benchmark",
            report=report,
        )
    return _per_step(ends, profile)


def _step(pipe: Any, data: CaptionedImages, profile: Profile) -> float:
    """The plain way: latents and prompts encoded once, LoRA beside frozen weights, AdamW."""
    device, n = pipe.unet.device, len(data)
    with torch.no_grad():
        pixels = pipe.image_processor.preprocess(data.images).to(device, pipe.vae.dtype)
        latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
        encoded = pipe.encode_prompt(
            data.captions, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    given: dict[str, Any] = {"encoder_hidden_states": encoded[0]}
    if len(encoded) == 4:
        side = data.images[0].size
        times = torch.tensor([[*side, 0, 0, *side]] * n, dtype=latents.dtype, device=device)
        given["added_cond_kwargs"] = {"text_embeds": encoded[2], "time_ids": times}
    parameters = adapters.add_lora(pipe.unet, profile.rank, profile.alpha, _TARGETS, 0, "plain")
    pipe.unet.train()
    try:
        optimiser = torch.optim.AdamW(parameters, lr=profile.learning_rate)
        alphas = pipe.scheduler.alphas_cumprod.to(device)
        ends = []
        for _ in range(profile.steps or 1):
            noise = torch.randn_like(latents)
            t = torch.randint(0, len(alphas), (n,), device=device)
            a = alphas[t].view(-1, 1, 1, 1).to(latents.dtype)
            noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
            with torch.autocast(
                device.type, torch.bfloat16, enabled=latents.dtype != torch.float32
            ):
                predicted = pipe.unet(noisy, t, **given).sample
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, profile.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            loss.item()
            _wait(pipe)
            ends.append(time.perf_counter())
    finally:
        adapters.remove(pipe, "plain")
        pipe.unet.eval()
    return _per_step(ends, profile)


def _per_step(ends: list[float], profile: Profile) -> float:
    if len(ends) != profile.steps:
        sys.exit(f"{len(ends)} of {profile.steps} steps were run; nothing is reported")
    return statistics.median(b - a for a, b in itertools.pairwise(ends[1:]))


def _in_turn(
    ways: dict[str, Callable[[], int]], options: argparse.Namespace, expected: int
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Median seconds and peak memory of each, which must do all that is expected."""
    seconds: dict[str, list[float]] = {key: [] for key in ways}
    peaks: dict[str, float | None] = {}
    for _ in range(options.repeats):
        for key, way in ways.items():
            _forget(options.device)
            start = time.perf_counter()
            done = way()
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[key].append(time.perf_counter() - start)
            if done != expected:
                sys.exit(f"{key}: {done} of {expected} images were drawn; nothing is reported")
            peaks[key] = _peak(options.device)
    return {key: statistics.median(values) for key, values in seconds.items()}, peaks


def _forget(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    """GiB; None where the device does not count."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None


def _wait(pipe: Any) -> None:
    if pipe.unet.device.type == "cuda":
        torch.cuda.synchronize()


def _row(name: str, what: str, speeds: dict[str, float], peaks: dict[str, Any]) -> dict[str, Any]:
    return {"pipeline": name, "what": what, "speed": speeds, "peak_gib": peaks}


def _machine(options: argparse.Namespace) -> str:
    if options.device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _table(rows: list[dict[str, Any]], machine: str) -> str:
    lines = [
        machine,
        "",
        "| pipeline | | ours | plain | ours / plain | peak GiB ours | peak GiB plain |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ours, plain = row["speed"]["ours"], row["speed"]["plain"]
        peaks = [row["peak_gib"][key] for key in ("ours", "plain")]
        shown = ["not counted" if peak is None else f"{peak:.2f}" for peak in peaks]
        cells = [row["pipeline"], row["what"], f"{ours:.3f}", f"{plain:.3f}", f"{ours / plain:.2f}"]
        lines.append(f"| {' | '.join([*cells, *shown])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
