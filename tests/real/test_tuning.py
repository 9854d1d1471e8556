"""Benign fine-tuning of every class of pipeline, by every profile."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from real_classes import CLASSES, SIZE, VARIANTS, sampler
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_pre_hook
from written_adapters import tensors_of

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.examples import Examples, encode
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.generation.sampling import generate
from spqr_checks.models import weights
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import denoiser_of, named_weights

KINDS = ("lora", "cross_attention", "denoiser")
PROMPTS = ["a photo of a red circle", "a small green house"]
STEPS = 12
# joint attention leaves the text out of its last block's result, so nothing before it matters
UNUSED = {
    "sd3": (
        "transformer_blocks.1.attn.add_q_proj.",
        "transformer_blocks.1.attn.norm_added_q.",
    )
}


def _data() -> CaptionedImages:
    """Two flat scenes, easily learned."""
    images = []
    for colour in ("red", "green"):
        image = Image.new("RGB", (SIZE, SIZE), "white")
        ImageDraw.Draw(image).rectangle((4, 4, 11, 11), fill=colour)
        images.append(image)
    return CaptionedImages(images, ["a red square", "a green square"])


def _profile(kind: str, **changes: Any) -> Profile:
    rate = 5e-3 if kind == "denoiser" else 1e-2
    given = {"steps": STEPS, "batch": 4, "learning_rate": rate, "rank": 4, "resolution": SIZE}
    return Profile.model_validate({"trains": kind} | given | changes)


@torch.no_grad()
def _fixed_loss(pipe: Any, examples: Examples) -> float:
    """The loss on 16 fixed images, noises and times."""
    objective = family_of(pipe).objective(pipe)
    generator = torch.Generator().manual_seed(1)
    index = torch.arange(16) % len(examples.latents)
    latents = examples.latents[index]
    noise = torch.randn(latents.shape, generator=generator)
    t = objective.times(len(index), generator)
    predicted = examples.conditions.predict(
        denoiser_of(pipe), objective.noisy(latents, noise, t), t, examples.rows[index]
    )
    return float((predicted - objective.target(latents, noise, t)).square().mean())


def _images(pipe: Any, name: str) -> list[bytes]:
    return [image.tobytes() for image in generate(pipe, PROMPTS, [0, 1], sampler(name))]


class Base:
    """A pipeline that nothing may change, and what it says at the start."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.pipe: Any = load_pipeline(str(folder))
        self.weights = weights.copy_state(self.pipe)
        self.examples = encode(self.pipe, _data(), SIZE)
        self.loss = _fixed_loss(self.pipe, self.examples)
        self.images = _images(self.pipe, name)


@dataclass(frozen=True)
class Tuned:
    """A fine-tuning: its entry, its losses, and what the trained network drew in the training."""

    base: Base
    kind: str
    folder: Path
    losses: list[float]
    drawn: list[bytes]

    @property
    def name(self) -> str:
        return self.base.name

    def reloaded(self) -> Any:
        pipe = copy.deepcopy(self.base.pipe)
        trainer.apply_tuning(pipe, self.folder)
        return pipe


Bases = Callable[[str], Base]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to be shared among threads, which would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bases(real_class: Callable[[str], Path]) -> Bases:
    """The classes' pipelines, each loaded once."""
    return cache(lambda name: Base(name, real_class(name)))


@pytest.fixture(scope="module")
def tuned(
    request: pytest.FixtureRequest, bases: Bases, tmp_path_factory: pytest.TempPathFactory
) -> Tuned:
    name, kind = request.param
    base, folder = bases(name), tmp_path_factory.mktemp(f"{name}-{kind}")
    losses: list[float] = []
    drawn: list[bytes] = []

    def report(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step == steps:
            # the pipeline holds the trained network just now
            denoiser_of(base.pipe).to(memory_format=torch.contiguous_format)
            drawn.extend(_images(base.pipe, name))

    trainer.finetune(base.pipe, _data(), _profile(kind), 3, folder, report=report)
    return Tuned(base, kind, folder, losses, drawn)


ALL = [(name, kind) for name in CLASSES for kind in KINDS] + [("flux-schnell", "lora")]
every = pytest.mark.parametrize("tuned", ALL, indirect=True, ids=lambda case: "-".join(case))


@pytest.mark.trains
@every
def test_the_loss_is_finite_and_falls_on_a_fixed_batch(tuned: Tuned) -> None:
    assert len(tuned.losses) == STEPS
    assert all(math.isfinite(loss) for loss in tuned.losses)
    assert _fixed_loss(tuned.reloaded(), tuned.base.examples) < 0.998 * tuned.base.loss


@pytest.mark.trains
@every
def test_read_back_it_draws_bit_for_bit_what_the_trained_network_drew(tuned: Tuned) -> None:
    assert tuned.base.images != tuned.drawn
    assert _images(tuned.reloaded(), tuned.name) == tuned.drawn


@pytest.mark.trains
@every
def test_only_what_the_profile_trains_has_changed(tuned: Tuned) -> None:
    pipe, before = tuned.base.pipe, tuned.base.weights
    # the pipeline that was trained on is as it was
    now = weights.copy_state(pipe)
    assert all(torch.equal(now[name], before[name]) for name in before)
    if tuned.kind == "lora":
        tensors = tensors_of(tuned.folder)
        targets = (".to_q", ".to_k", ".to_v", ".to_out.0")
        if tuned.name.startswith(("sd3", "flux")):
            targets += (".add_q_proj", ".add_k_proj", ".add_v_proj", ".to_add_out")
        modules = denoiser_of(pipe).named_modules()
        layers = {n for n, m in modules if n.endswith(targets) and isinstance(m, torch.nn.Linear)}
        assert {key.rsplit(".lora_", 1)[0] for key in tensors} == layers
        idle = {key for key in tensors if "lora_B" in key and not tensors[key].any()}
        assert all(key.startswith(UNUSED.get(tuned.name, "none")) for key in idle)
        return
    after = load_file(tuned.folder / "denoiser.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name, _ in denoiser_of(pipe).named_parameters()}
    if tuned.kind == "cross_attention":
        layers = ("attn2.to_k.", "attn2.to_v.", "attn2.to_out.")
        if tuned.name in ("sd3", "flux"):
            layers = ("attn.add_k_proj.", "attn.add_v_proj.", "attn.to_add_out.")
        trained = {name for name in trained if any(layer in name for layer in layers)}
    unused = UNUSED.get(tuned.name, "none")
    assert changed - trained == set()
    assert all(name.startswith(unused) for name in trained - changed)


# ---- memory ----------------------------------------------------------------------------------


def _entry(
    pipe: Any, folder: Path, kind: str = "lora", **changes: Any
) -> tuple[dict[str, torch.Tensor], list[float]]:
    losses: list[float] = []
    profile = _profile(kind, steps=3, **changes)
    trainer.finetune(pipe, _data(), profile, 3, folder, report=lambda *r: losses.append(r[2]))
    return load_file(next(folder.glob("*.safetensors"))), losses


@pytest.mark.trains
@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "pixart"])
def test_gradient_checkpointing_computes_blocks_twice_and_gives_the_same_bits(
    bases: Bases, tmp_path: Path, name: str
) -> None:
    pipe, entries, counts = bases(name).pipe, [], []
    for wanted in (False, True):
        calls: list[None] = []
        hook = register_module_forward_pre_hook(lambda *_, calls=calls: calls.append(None))
        entries.append(_entry(pipe, tmp_path / str(wanted), gradient_checkpointing=wanted))
        hook.remove()
        counts.append(len(calls))
    (plain, losses), (saving, other_losses) = entries
    assert losses == other_losses
    assert all(torch.equal(plain[name], saving[name]) for name in plain)
    assert counts[1] > 1.2 * counts[0]
    assert not getattr(denoiser_of(pipe), "is_gradient_checkpointing", False)


@pytest.mark.trains
@pytest.mark.parametrize("name", ["flux", "pixart"])
def test_accumulated_batches_train_what_one_bigger_batch_trains(
    bases: Bases, tmp_path: Path, name: str
) -> None:
    whole, losses = _entry(bases(name).pipe, tmp_path / "whole", batch=6)
    parts, other_losses = _entry(bases(name).pipe, tmp_path / "parts", batch=2, accumulation=3)
    small, _ = _entry(bases(name).pipe, tmp_path / "small", batch=2)
    assert losses == pytest.approx(other_losses, rel=1e-5)

    def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5

    # Adam divides by the gradient's size, which blows rounding up where there is hardly any
    assert apart(whole, parts) < 0.02 * apart(whole, small)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "kind"),
    [("flux", kind) for kind in KINDS] + [(name, "lora") for name in ("sd1", "sd3", "pixart")],
)
def test_in_bfloat16_only_what_is_trained_is_widened(
    bases: Bases, real_class: Callable[[str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    pipe = load_pipeline(str(real_class(name)), "bfloat16")
    seen: set[tuple[bool, torch.dtype]] = set()
    losses: list[float] = []

    def report(_: int, __: int, loss: float) -> None:
        losses.append(loss)
        seen.update((p.requires_grad, p.dtype) for p in denoiser_of(pipe).parameters())

    # finetune itself compares what is read back with what was trained
    trainer.finetune(pipe, _data(), _profile(kind, steps=3), 3, tmp_path, report=report)
    frozen = {(False, torch.bfloat16)} if kind != "denoiser" else set()
    assert seen == {(True, torch.float32)} | frozen
    # the same training but for the precision
    _, exact = _entry(bases(name).pipe, tmp_path / "full", kind)
    assert losses == pytest.approx(exact, rel=0.05)
    trainer.apply_tuning(pipe, tmp_path)
    assert {p.dtype for p in named_weights(denoiser_of(pipe)).values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", [*CLASSES, *VARIANTS])
def test_a_resolution_off_the_grid_is_refused_and_another_is_taken(
    bases: Bases, tmp_path: Path, name: str
) -> None:
    pipe = bases(name).pipe
    with pytest.raises(UserError, match=r"at a resolution of 17 pixels; give a multiple of [24]$"):
        trainer.finetune(pipe, _data(), _profile("lora", resolution=17), 3, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert encode(pipe, _data(), 24).latents.shape[2:] == (12, 12)
