"""What each adaptation does to a tiny pipeline; one that does nothing is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from written_adapters import write_adapter

from spqr_checks.adaptations.adapter import Adapter
from spqr_checks.adaptations.applying import apply_adaptation, weights_digests
from spqr_checks.adaptations.bf16 import Bf16
from spqr_checks.adaptations.few_step import FewStep
from spqr_checks.adaptations.fp16 import Fp16
from spqr_checks.adaptations.kind import AdaptationKind, Given, adaptation_recipe
from spqr_checks.adaptations.merged import Merged
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import generate
from spqr_checks.models.weights import copy_state, named_weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SAMPLER = Sampler(steps=2, guidance=3.0, batch=2)
GIVEN = Given(None, None, None, SAMPLER)
PROMPTS, SEEDS = ["a red triangle", "a green circle"], [0, 0]


def drawn(pipe: Any, sampler: Sampler = SAMPLER) -> list[bytes]:
    return [image.tobytes() for image in generate(pipe, PROMPTS, SEEDS, sampler)]


def put(pipe: Any, kind: AdaptationKind, given: Given = GIVEN) -> Any:
    return apply_adaptation(pipe, kind, given)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    return (
        tensor.detach()
        if type(tensor) in (torch.Tensor, torch.nn.Parameter)
        else (tensor.dequantize())
    )


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_two_adapters_are_added_at_their_scale(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, scale: float
) -> None:
    added = [
        write_adapter(tiny_pipeline, tmp_path / kind, kind, strength)
        for kind, strength in (("peft", 0.5), ("diffusers", 0.2))
    ]
    before = copy_state(tiny_pipeline)
    files = (str(tmp_path / "peft"), str(tmp_path / "diffusers"))
    put(tiny_pipeline, Adapter(files=files, scale=scale))
    after = copy_state(tiny_pipeline)
    assert after.keys() == before.keys()
    for name, weight in after.items():
        more = sum((scale * one[name] for one in added if name in one), torch.zeros(()))
        torch.testing.assert_close(weight, before[name] + more, msg=name)


def test_an_adapter_that_adds_nothing_is_an_error(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    write_adapter(tiny_pipeline, tmp_path / "zero", "diffusers", strength=0.0)
    with pytest.raises(UserError, match="'adapter' changed no weight"):
        put(tiny_pipeline, Adapter(files=(str(tmp_path / "zero"),)))


@pytest.mark.parametrize("kind", [Bf16(), Fp16()], ids=["bf16", "fp16"])
def test_half_precision_rounds_every_network_and_still_draws(
    tiny_pipeline: StableDiffusionPipeline, kind: Any
) -> None:
    before, unet = drawn(tiny_pipeline), copy_state(tiny_pipeline)
    put(tiny_pipeline, kind)
    dtype = getattr(torch, kind.dtype)
    for network in (tiny_pipeline.unet, tiny_pipeline.vae, tiny_pipeline.text_encoder):
        assert {p.dtype for p in network.parameters()} == {dtype}
    assert all(torch.equal(w, unet[k].to(dtype)) for k, w in copy_state(tiny_pipeline).items())
    assert drawn(tiny_pipeline) != before
    with pytest.raises(UserError, match="changed no weight"):
        put(tiny_pipeline, kind)


def test_weights_that_half_precision_cannot_hold_are_refused(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.weight[0] = 1e5
    with pytest.raises(UserError, match=r"unet\.conv_in\.weight holds NaN or infinite values"):
        put(tiny_pipeline, Fp16())


@pytest.mark.parametrize(("name", "levels"), [("int8", 255), ("int4", 16), ("fp8", 255)])
def test_quantised_layers_hold_few_values_near_the_candidate_s(
    tiny_pipeline: StableDiffusionPipeline, name: str, levels: int
) -> None:
    pytest.importorskip("torchao")
    options = {"group": 8} if name == "int4" else {}
    kind = ADAPTATIONS.get(name)(**options)
    before, first = copy_state(tiny_pipeline), drawn(tiny_pipeline)
    put(tiny_pipeline, kind)
    layer = tiny_pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    row = plain(layer.weight)[0][: options.get("group", 10**6)]
    assert len(row.unique()) <= levels
    changed = 0
    for key, tensor in named_weights(tiny_pipeline.unet).items():
        now = plain(tensor)
        torch.testing.assert_close(now, before[key], atol=0.1, rtol=0.2, msg=key)
        changed += not torch.equal(now, before[key])
        assert torch.equal(now, before[key]) or now.ndim == 2  # convolutions are left alone
    assert changed > 10
    assert drawn(tiny_pipeline) != first
    assert drawn(tiny_pipeline) == drawn(tiny_pipeline)


def test_quantisation_that_changes_no_weight_is_an_error(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    pytest.importorskip("torchao")
    with torch.no_grad():  # which integers of any scale hold exactly
        for weight in named_weights(tiny_pipeline.unet).values():
            if weight.ndim == 2:
                weight.zero_()
    with pytest.raises(UserError, match="'int8' changed no weight"):
        put(tiny_pipeline, ADAPTATIONS.get("int8")())


def test_layers_that_a_group_does_not_divide_are_left_and_none_at_all_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(UserError, match="no layer of UNet2DConditionModel can be quantised"):
        put(tiny_pipeline, ADAPTATIONS.get("int4")(group=48))


def test_another_scheduler_draws_otherwise_and_one_of_another_kind_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    before, weights = drawn(tiny_pipeline), weights_digests(tiny_pipeline)
    put(tiny_pipeline, FewStep(scheduler="DDIMScheduler"))
    assert type(tiny_pipeline.scheduler).__name__ == "DDIMScheduler"
    assert drawn(tiny_pipeline) != before
    assert weights_digests(tiny_pipeline) == weights
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler cannot take the place"):
        put(tiny_pipeline, FewStep(scheduler="FlowMatchEulerDiscreteScheduler"))


@pytest.mark.parametrize("name", ["", "its own"])
def test_drawing_as_the_run_does_is_an_error(
    tiny_pipeline: StableDiffusionPipeline, name: str
) -> None:
    own = type(tiny_pipeline.scheduler).__name__
    kind = FewStep(scheduler=name and own)
    with pytest.raises(UserError, match="'few-step' draws from the StableDiffusionPipeline as the"):
        put(tiny_pipeline, kind, replace(GIVEN, run=SAMPLER))
    fewer = replace(GIVEN, run=SAMPLER.model_copy(update={"steps": 9}))
    put(tiny_pipeline, kind, fewer)


def test_a_merge_is_the_weighted_average(tiny_pipeline: StableDiffusionPipeline) -> None:
    import copy

    tuned = copy.copy(tiny_pipeline)
    tuned = type(tiny_pipeline)(
        **{k: v for k, v in tiny_pipeline.components.items() if k != "unet"},
        unet=copy.deepcopy(tiny_pipeline.unet),
        requires_safety_checker=False,
    )
    with torch.no_grad():
        for weight in tuned.unet.parameters():
            weight.add_(0.1)
    before, other = copy_state(tiny_pipeline), copy_state(tuned)
    put(tiny_pipeline, Merged(weight=0.25), Given(None, lambda: tuned, None, SAMPLER))
    for name, weight in copy_state(tiny_pipeline).items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * other[name], msg=name)


def test_a_recipe_knows_what_files_hold_and_not_where_they_lie(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    for folder, strength in (("a", 0.5), ("b", 0.5), ("c", 0.4)):
        write_adapter(tiny_pipeline, tmp_path / folder, "peft", strength)
    a, b, c = (
        adaptation_recipe(Adapter(files=(str(tmp_path / f),), scale=s), {})
        for f, s in (("a", 1.0), ("b", 1.0), ("c", 1.0))
    )
    assert a == b
    assert a != c
    assert str(tmp_path) not in str(a)
    assert a != adaptation_recipe(Adapter(files=(str(tmp_path / "a"),), scale=0.5), {})


def test_versions_of_the_quantising_library_are_in_the_key() -> None:
    torchao = pytest.importorskip("torchao")
    recipe = adaptation_recipe(ADAPTATIONS.get("int8")(), {})
    assert recipe["versions"]["torchao"] == torchao.__version__.split("+")[0]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from spqr_checks.adaptations.quantisation import Quantised

    monkeypatch.setattr(Quantised, "packages", ("no-such-library",))
    with pytest.raises(UserError, match=r"'int8' needs no-such-library.*spqr-checks\[quantised\]"):
        adaptation_recipe(ADAPTATIONS.get("int8")(), {})
