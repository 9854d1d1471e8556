"""Modular LoRA: training, and W0 + ΔW_safe + ΔW_ft with fine-tunings as users make them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spqr_checks.alignment.modular_lora import ModularLoraOptions
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Profile, Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.finetuning.trainer import apply_tuning_delta, finetune
from spqr_checks.generation.conditions import encode
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import activate

Kind = Literal["lora", "denoiser"]
MODULAR = method("modular-lora")
HARMFUL = "a red triangle"


def train_safety(pipe: StableDiffusionPipeline, out: Path, loss: str, **options: Any) -> None:
    request = AlignmentRequest(
        concepts=["red triangle"],
        harmful=[HARMFUL],
        anchors=[""],
        keep=[],
        seed=3,
        threads=1,
        sampler=Sampler(steps=2, guidance=2.0, batch=4),
    )
    given = {loss: {"latents": "pool", "pool": 8, "learning_rate": 1e-2} | options}
    MODULAR.align(pipe, request, MODULAR.parse({"loss": loss} | given), out)


def predict(pipe: StableDiffusionPipeline, prompt: str = HARMFUL) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 4, 8, 8, generator=generator), torch.tensor([50, 300, 600, 900])
    hidden = encode(pipe, [prompt]).hidden.expand(4, -1, -1)
    with torch.no_grad():
        return pipe.unet(x, t, hidden).sample  # type: ignore[no-any-return]


def assemble(
    pipe: StableDiffusionPipeline, safety: Path, tuning: Path | None = None, scale: float = 1.0
) -> None:
    """W0 + scale · ΔW_safe + ΔW_ft, the adapters not merged."""
    original = weights.copy_state(pipe)
    adapters.load_adapter(pipe, safety, "safety", scale)
    if tuning is not None:
        apply_tuning_delta(pipe, tuning, original)


def tune(pipe: StableDiffusionPipeline, scenes: CaptionedImages, out: Path, kind: Kind) -> Path:
    profile = Profile(trains=kind, steps=2, batch=2, learning_rate=1e-2, rank=4, alpha=4.0)
    finetune(pipe, scenes, profile, 5, out)
    return out


@pytest.fixture(scope="module")
def base(tiny_pipeline_dir: Path) -> StableDiffusionPipeline:
    """W0; nobody changes it."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline_dir)
    assert isinstance(pipe, StableDiffusionPipeline)
    return pipe


@pytest.fixture
def pipe(base: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A copy of W0."""
    return copy.deepcopy(base)


@pytest.fixture(scope="module")
def scenes() -> CaptionedImages:
    return load_images("miniature:stripes:4")


@pytest.fixture(scope="module")
def safety(base: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safety adapter, trained by ESD for a few dozen steps."""
    out = tmp_path_factory.mktemp("safety")
    train_safety(copy.deepcopy(base), out, "esd", steps=40, batch=4)
    return out


@pytest.fixture(scope="module")
def tuned(
    base: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Kind], Path]:
    """Fine-tunings of W0 that has never seen a safety adapter; each is made once."""
    made: dict[str, Path] = {}

    def make(kind: Kind) -> Path:
        if kind not in made:
            made[kind] = tune(base, scenes, tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- the method ----------------------------------------------------------------------------------


def test_users_attach_to_the_base_unless_the_run_says_otherwise() -> None:
    assert MODULAR.attach == "base"
    assert method("esd").attach == "released"


def test_the_defaults_are_as_reported_of_the_paper() -> None:
    esd = MODULAR.parse({}).esd
    assert (esd.rank, esd.alpha, esd.steps, esd.learning_rate) == (4, None, 1500, 1e-4)
    sdd = MODULAR.parse({"loss": "sdd"}).sdd
    assert (sdd.rank, sdd.alpha, sdd.steps, sdd.learning_rate) == (4, None, 1500, 1e-5)


def test_only_the_chosen_loss_is_in_the_recipe() -> None:
    options = MODULAR.parse({"loss": "sdd", "sdd": {"rank": 8}})
    recipe = MODULAR.recipe(options)["options"]
    assert recipe["esd"] is None
    assert recipe["sdd"]["rank"] == 8
    assert ModularLoraOptions.model_validate(recipe) == options


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"esd": {"rank": 0}}, r"method 'modular-lora': option 'esd\.rank'"),
        ({"loss": "sdd", "sdd": {"rank": 0}}, r"'sdd\.rank'"),
        ({"loss": "uce"}, "'loss'"),
        ({"loss": "sdd", "esd": {"eta": 2}}, "options of 'esd' have no effect"),
        ({"sdd": {}}, "options of 'sdd' have no effect"),
        ({"esd": {"ema": 0.5}}, r"unknown option 'esd\.ema'"),
        ({"eta": 2}, "unknown option 'eta'"),
    ],
)
def test_options_that_make_no_safety_adapter_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        MODULAR.parse(given)


@pytest.mark.heavy
@pytest.mark.parametrize("loss", ["esd", "sdd"])
def test_the_adapter_is_that_of_the_loss_on_its_own(
    pipe: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    loss: str,
) -> None:
    again = copy.deepcopy(pipe)
    options = {"latents": "pool", "pool": 4, "steps": 2, "rank": 2, "learning_rate": 1e-2}
    alone = method(loss)
    alone.align(pipe, make_request(), alone.parse(options), tmp_path / "alone")
    given = MODULAR.parse({"loss": loss, loss: options})
    MODULAR.align(again, make_request(), given, tmp_path / "modular")
    ours, theirs = contents(tmp_path / "modular"), contents(tmp_path / "alone")
    assert ours["pytorch_lora_weights.safetensors"] == theirs["pytorch_lora_weights.safetensors"]
    assert ours["adapter.json"] == theirs["adapter.json"]
    assert ours.keys() - theirs.keys() == {"modular.json"}


def test_a_training_that_diverges_leaves_no_seal(
    pipe: StableDiffusionPipeline, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="diverged"):
        train_safety(pipe, tmp_path, "esd", learning_rate=1e30, steps=5)
    assert list(tmp_path.iterdir()) == []


# ---- W0 + ΔW_safe + ΔW_ft ------------------------------------------------------------------------


@pytest.mark.heavy
def test_the_measured_model_is_the_assembled_one(
    pipe: StableDiffusionPipeline, base: StableDiffusionPipeline, safety: Path
) -> None:
    assembled = copy.deepcopy(pipe)
    apply_alignment(pipe, safety)
    assemble(assembled, safety)
    torch.testing.assert_close(predict(pipe), predict(assembled), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predict(pipe), predict(base), atol=1e-2)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["lora", "denoiser"])
def test_a_fine_tuning_with_the_safety_adapter_detached_is_one_without_it(
    pipe: StableDiffusionPipeline,
    scenes: CaptionedImages,
    safety: Path,
    tuned: Callable[[Kind], Path],
    tmp_path: Path,
    kind: Kind,
) -> None:
    assemble(pipe, safety)
    activate(pipe.unet, [])
    tune(pipe, scenes, tmp_path, kind)
    assert contents(tmp_path) == contents(tuned(kind))


def test_a_fine_tuning_with_the_safety_adapter_attached_is_another(
    pipe: StableDiffusionPipeline,
    scenes: CaptionedImages,
    safety: Path,
    tuned: Callable[[Kind], Path],
    tmp_path: Path,
) -> None:
    assemble(pipe, safety)
    tune(pipe, scenes, tmp_path, "lora")
    name = "pytorch_lora_weights.safetensors"
    assert contents(tmp_path)[name] != contents(tuned("lora"))[name]


def test_without_the_fine_tuning_it_is_exactly_the_safe_model_and_without_both_exactly_the_base(
    pipe: StableDiffusionPipeline,
    base: StableDiffusionPipeline,
    safety: Path,
    tuned: Callable[[Kind], Path],
) -> None:
    safe = copy.deepcopy(base)
    assemble(safe, safety)
    assemble(pipe, safety, tuned("lora"))
    assert not torch.equal(predict(pipe), predict(safe))
    adapters.remove(pipe, "tuning")
    assert torch.equal(predict(pipe), predict(safe))
    assert not torch.equal(predict(safe), predict(base))
    adapters.remove(pipe, "safety")
    assert torch.equal(predict(pipe), predict(base))
    assert weights.weights_digest(pipe.unet) == weights.weights_digest(base.unet)


@pytest.mark.parametrize("kind", ["lora", "denoiser"])
def test_the_order_of_merging_does_not_matter(
    pipe: StableDiffusionPipeline,
    base: StableDiffusionPipeline,
    safety: Path,
    tuned: Callable[[Kind], Path],
    kind: Kind,
) -> None:
    tuning = tuned(kind)
    original = weights.copy_state(base)
    assemble(pipe, safety, tuning)  # safety first, both attached
    adapters.merge(pipe)
    other = copy.deepcopy(base)  # the fine-tuning merged first, then safety
    if kind == "lora":
        adapters.load_adapter(other, tuning, "tuning")
        adapters.merge(other)
    else:
        weights.load_denoiser(other, tuning)
    adapters.load_adapter(other, safety, "safety")
    adapters.merge(other)
    third = copy.deepcopy(base)  # safety merged first, then the fine-tuning
    apply_alignment(third, safety)
    if kind == "lora":
        adapters.load_adapter(third, tuning, "tuning")
        adapters.merge(third)
    else:
        weights.add_delta(third, tuning, original)
    sums = [weights.copy_state(model) for model in (pipe, other, third)]
    for name, value in sums[0].items():
        for another in sums[1:]:
            torch.testing.assert_close(another[name], value, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(predict(pipe), predict(base), atol=1e-2)


@pytest.mark.parametrize("kind", ["lora", "denoiser"])
def test_the_sum_is_that_of_the_differences(
    pipe: StableDiffusionPipeline,
    base: StableDiffusionPipeline,
    safety: Path,
    tuned: Callable[[Kind], Path],
    kind: Kind,
) -> None:
    safe, tuned_alone = copy.deepcopy(base), copy.deepcopy(base)
    apply_alignment(safe, safety)
    if kind == "lora":
        adapters.load_adapter(tuned_alone, tuned(kind), "tuning")
        adapters.merge(tuned_alone)
    else:
        weights.load_denoiser(tuned_alone, tuned(kind))
    assemble(pipe, safety, tuned(kind))
    adapters.merge(pipe)
    w0, w_safe, w_tuned, total = (
        weights.copy_state(model) for model in (base, safe, tuned_alone, pipe)
    )
    for name, value in total.items():
        expected = w0[name] + (w_safe[name] - w0[name]) + (w_tuned[name] - w0[name])
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_the_scale_moves_the_prediction_along_the_safety_direction(
    base: StableDiffusionPipeline, safety: Path
) -> None:
    def at(scale: float) -> Tensor:
        pipe = copy.deepcopy(base)
        assemble(pipe, safety, scale=scale)
        return predict(pipe)

    none, half, whole, more = (at(scale) for scale in (0.0, 0.5, 1.0, 1.5))
    torch.testing.assert_close(none, predict(base), atol=1e-6, rtol=1e-5)
    direction = whole - none
    along = [float(((p - none) * direction).sum() / direction.square().sum()) for p in (half, more)]
    assert 0.2 < along[0] < 0.8
    assert along[1] > 1.2
    # ESD's target at η = 1: 2 e0("") − e0(c)
    target = 2 * predict(base, "") - predict(base)
    left = [float((p - target).norm()) for p in (none, half, whole)]
    assert left[0] > left[1] > left[2]


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(
    pipe: StableDiffusionPipeline, safety: Path, scale: float
) -> None:
    with pytest.raises(UserError, match="finite"):
        assemble(pipe, safety, scale=scale)
    assert not adapters.active_adapters(pipe.unet)
