"""The denoiser's weights: saved and loaded strictly, compared, shifted, destroyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models import adapters, weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

KEY = "conv_in.weight"


def disturb(pipe: StableDiffusionPipeline, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def drawn(pipe: StableDiffusionPipeline) -> Tensor:
    with torch.no_grad():
        return pipe.unet(torch.full((1, 4, 8, 8), 0.3), 5, torch.ones(1, 4, 16)).sample


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    path = folder / weights.FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def saved(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> Path:
    """The tiny pipeline's denoiser after a change, while the pipeline itself is as it was."""
    reference = weights.copy_state(tiny_pipeline)
    disturb(tiny_pipeline)
    weights.save_denoiser(tiny_pipeline, tmp_path / "tuned")
    tiny_pipeline.unet.load_state_dict(reference)
    return tmp_path / "tuned"


def test_the_denoiser_is_the_unet_or_the_transformer() -> None:
    unet, transformer = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    assert weights.denoiser_of(SimpleNamespace(unet=unet)) is unet  # type: ignore[arg-type]
    found = weights.denoiser_of(SimpleNamespace(transformer=transformer))  # type: ignore[arg-type]
    assert found is transformer
    with pytest.raises(UserError, match="neither a unet nor a transformer"):
        weights.denoiser_of(SimpleNamespace(prior=unet))  # type: ignore[arg-type]


def test_a_loaded_denoiser_is_the_saved_one_bit_for_bit(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    before = drawn(tiny_pipeline)
    weights.load_denoiser(tiny_pipeline, saved)
    after = drawn(tiny_pipeline)
    assert not torch.equal(before, after)
    disturb(tiny_pipeline, seed=2)
    weights.load_denoiser(tiny_pipeline, saved)
    assert torch.equal(drawn(tiny_pipeline), after)


def test_the_file_holds_the_whole_state(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    assert load_file(saved / weights.FILE).keys() == tiny_pipeline.unet.state_dict().keys()


def test_loading_casts_to_the_dtype_of_the_pipeline(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    tiny_pipeline.unet.half()
    weights.load_denoiser(tiny_pipeline, saved)
    expected = load_file(saved / weights.FILE)[KEY].half()
    assert torch.equal(tiny_pipeline.unet.state_dict()[KEY], expected)


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors[KEY]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["conv_extra.weight"] = torch.zeros(1)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors[KEY] = tensors[KEY][:, :-1].contiguous()


def spoil(value: float, key: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[key].view(-1)[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"1 missing \(conv_in.weight\)"),
        (add, r"1 unexpected \(conv_extra.weight\)"),
        (reshape, r"conv_in.weight has shape \[8, 3, 3, 3\], this model needs \[8, 4, 3, 3\]"),
        (spoil(float("nan"), KEY), "conv_in.weight holds NaN or infinite values"),
        (spoil(float("-inf"), KEY), "conv_in.weight holds NaN or infinite values"),
        # the last tensor in the file: everything before it must have stayed as it was
        (spoil(float("nan"), "up_blocks.1.resnets.1.time_emb_proj.weight"), "holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(
    tiny_pipeline: StableDiffusionPipeline,
    saved: Path,
    change: Callable[[dict[str, Tensor]], Any],
    message: str,
) -> None:
    path = rewrite(saved, change)
    before = drawn(tiny_pipeline)
    with pytest.raises(UserError, match=message) as raised:
        weights.load_denoiser(tiny_pipeline, saved)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
    assert torch.equal(drawn(tiny_pipeline), before)


def test_only_the_first_of_many_keys_are_named(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    rewrite(saved, lambda tensors: [tensors.pop(key) for key in list(tensors)[:20]])
    with pytest.raises(UserError, match=r"20 missing \([^,]+, [^,]+, [^,]+, …\)"):
        weights.load_denoiser(tiny_pipeline, saved)


def test_weights_of_another_architecture_are_refused(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    config = dict(tiny_pipeline.unet.config) | {"layers_per_block": 2}
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config)
    with pytest.raises(UserError, match="weights do not fit this model"):
        weights.load_denoiser(tiny_pipeline, saved)


def test_a_value_too_large_for_the_pipelines_dtype_is_refused(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    rewrite(saved, spoil(1e6, KEY))
    tiny_pipeline.unet.half()
    with pytest.raises(UserError, match=r"infinite values as torch.float16"):
        weights.load_denoiser(tiny_pipeline, saved)


def test_a_truncated_file_is_refused(tiny_pipeline: StableDiffusionPipeline, saved: Path) -> None:
    path = saved / weights.FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"denoiser.safetensors is truncated"):
        weights.load_denoiser(tiny_pipeline, saved)


def test_a_missing_file_is_refused(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"denoiser.safetensors: cannot be read"):
        weights.load_denoiser(tiny_pipeline, tmp_path)


def test_weights_with_nan_are_not_saved(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="to be saved: conv_in.weight holds NaN"):
        weights.save_denoiser(tiny_pipeline, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_neither_saved_nor_loaded_below_an_adapter_whose_effect_would_change(
    tiny_pipeline: StableDiffusionPipeline, saved: Path, tmp_path: Path
) -> None:
    adapters.add_lora(tiny_pipeline.unet, 2, 2.0, adapters.TARGETS, 0, "safety")
    with pytest.raises(ValueError, match="saved while adapters are attached"):
        weights.save_denoiser(tiny_pipeline, tmp_path / "other")
    with pytest.raises(ValueError, match="loaded while adapters are attached"):
        weights.load_denoiser(tiny_pipeline, saved)


def test_names_and_digest_of_the_weights_do_not_depend_on_adapters(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    plain = dict(tiny_pipeline.unet.state_dict())
    digest = weights.weights_digest(tiny_pipeline.unet)
    adapters.add_lora(tiny_pipeline.unet, 2, 2.0, adapters.TARGETS, 0, "safety")
    found = weights.named_weights(tiny_pipeline.unet)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    assert weights.weights_digest(tiny_pipeline.unet) == digest
    disturb(tiny_pipeline)
    assert weights.weights_digest(tiny_pipeline.unet) != digest


def test_a_copied_state_does_not_follow_the_model(tiny_pipeline: StableDiffusionPipeline) -> None:
    reference = weights.copy_state(tiny_pipeline)
    before = reference[KEY].clone()
    disturb(tiny_pipeline)
    assert torch.equal(reference[KEY], before)


# ---- attaching a tuning elsewhere ------------------------------------------------------------


def test_a_delta_from_the_weights_it_was_learned_on_gives_the_tuned_weights(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    weights.add_delta(tiny_pipeline, saved, weights.copy_state(tiny_pipeline))
    tuned = load_file(saved / weights.FILE)
    for key, tensor in tiny_pipeline.unet.state_dict().items():
        torch.testing.assert_close(tensor, tuned[key], rtol=0, atol=1e-6)


def test_a_delta_is_added_to_whatever_is_there(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    reference = weights.copy_state(tiny_pipeline)
    disturb(tiny_pipeline, seed=7)
    aligned = weights.copy_state(tiny_pipeline)
    weights.add_delta(tiny_pipeline, saved, reference)
    tuned = load_file(saved / weights.FILE)
    for key, tensor in tiny_pipeline.unet.state_dict().items():
        expected = aligned[key] + (tuned[key] - reference[key])
        assert torch.equal(tensor, expected)
    assert not torch.equal(tiny_pipeline.unet.state_dict()[KEY], tuned[KEY])


def test_a_delta_is_computed_in_float32(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    """1 + 2⁻¹⁰ is a float16, the delta of 2⁻¹² alone is not lost to rounding on the way."""
    tiny_pipeline.unet.half()
    with torch.no_grad():
        for parameter in tiny_pipeline.unet.parameters():
            parameter.fill_(1 + 2**-10)
    reference = {
        k: torch.full_like(v, 2048.0).float() for k, v in weights.copy_state(tiny_pipeline).items()
    }
    tuned = {key: tensor + 0.5 for key, tensor in reference.items()}  # 2048.5 is no float16
    (tmp_path / "tuned").mkdir()
    save_file(tuned, tmp_path / "tuned" / weights.FILE)
    weights.add_delta(tiny_pipeline, tmp_path / "tuned", reference)
    expected = torch.tensor(1.5 + 2**-10).half()
    assert torch.equal(tiny_pipeline.unet.conv_in.weight.unique(), expected[None])
    assert tiny_pipeline.unet.dtype == torch.float16


def test_a_delta_may_be_added_below_an_adapter(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    reference = weights.copy_state(tiny_pipeline)
    adapters.add_lora(tiny_pipeline.unet, 2, 2.0, adapters.TARGETS, 0, "safety")
    weights.add_delta(tiny_pipeline, saved, reference)
    adapters.remove(tiny_pipeline, "safety")
    tuned = load_file(saved / weights.FILE)
    torch.testing.assert_close(tiny_pipeline.unet.state_dict()[KEY], tuned[KEY])


def test_a_delta_needs_a_reference_of_the_same_architecture(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    reference = weights.copy_state(tiny_pipeline)
    del reference[KEY]
    with pytest.raises(UserError, match=r"reference weights: .* 1 missing \(conv_in.weight\)"):
        weights.add_delta(tiny_pipeline, saved, reference)
    reference[KEY] = torch.zeros(3)
    with pytest.raises(UserError, match=r"reference weights: conv_in.weight has shape \[3\]"):
        weights.add_delta(tiny_pipeline, saved, reference)


def test_a_delta_with_nan_changes_nothing(
    tiny_pipeline: StableDiffusionPipeline, saved: Path
) -> None:
    reference = weights.copy_state(tiny_pipeline)
    rewrite(saved, spoil(float("inf"), KEY))
    before = drawn(tiny_pipeline)
    with pytest.raises(UserError, match="conv_in.weight holds NaN or infinite"):
        weights.add_delta(tiny_pipeline, saved, reference)
    assert torch.equal(drawn(tiny_pipeline), before)


# ---- an aligned model is not its base ---------------------------------------------------------


def test_a_model_that_is_its_base_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(UserError, match="identical to its base"):
        weights.assert_differs(tiny_pipeline, weights.copy_state(tiny_pipeline))
    with pytest.raises(UserError, match="identical to its base"):
        weights.assert_differs(tiny_pipeline, tiny_pipeline)


def test_one_changed_weight_is_a_difference(tiny_pipeline: StableDiffusionPipeline) -> None:
    reference = weights.copy_state(tiny_pipeline)
    with torch.no_grad():
        tiny_pipeline.unet.conv_out.bias[0] += 1e-3
    weights.assert_differs(tiny_pipeline, reference)


def test_an_adapter_is_a_difference_once_it_acts(tiny_pipeline: StableDiffusionPipeline) -> None:
    reference = weights.copy_state(tiny_pipeline)
    trainable = adapters.add_lora(tiny_pipeline.unet, 2, 2.0, adapters.TARGETS, 0, "safety")
    with pytest.raises(UserError, match="no adapter acts"):  # B is zero
        weights.assert_differs(tiny_pipeline, reference)
    with torch.no_grad():
        trainable[1].fill_(0.1)
    weights.assert_differs(tiny_pipeline, reference)
    adapters.activate(tiny_pipeline.unet, [])
    with pytest.raises(UserError, match="no adapter acts"):
        weights.assert_differs(tiny_pipeline, reference)


def test_a_changed_text_encoder_is_a_difference_from_a_pipeline(
    tiny_pipeline: StableDiffusionPipeline, tiny_pipeline_dir: Path
) -> None:
    from spqr_checks.models.pipelines import load_pipeline

    base = load_pipeline(str(tiny_pipeline_dir))
    with pytest.raises(UserError, match="identical to its base"):
        weights.assert_differs(tiny_pipeline, base)
    with torch.no_grad():
        next(tiny_pipeline.text_encoder.parameters()).add_(1e-2)
    weights.assert_differs(tiny_pipeline, base)


# ---- the destroyed generator ------------------------------------------------------------------


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**31))
def test_shuffling_keeps_the_values_of_every_tensor_and_depends_on_the_seed_alone(
    tiny_pipeline: StableDiffusionPipeline, seed: int
) -> None:
    before = weights.copy_state(tiny_pipeline)
    weights.shuffle_denoiser(tiny_pipeline, seed)
    once = weights.copy_state(tiny_pipeline)
    assert all(
        torch.equal(once[k].sort().values, before[k].sort().values)
        if once[k].ndim == 1
        else torch.equal(once[k].flatten().sort().values, before[k].flatten().sort().values)
        for k in before
    )
    assert not torch.equal(once[KEY], before[KEY])
    tiny_pipeline.unet.load_state_dict(before)
    torch.rand(3)
    weights.shuffle_denoiser(tiny_pipeline, seed)
    again = weights.copy_state(tiny_pipeline)
    assert all(torch.equal(once[key], again[key]) for key in before)
    tiny_pipeline.unet.load_state_dict(before)
    weights.shuffle_denoiser(tiny_pipeline, seed + 1)
    assert not torch.equal(tiny_pipeline.unet.state_dict()[KEY], once[KEY])


def test_shuffling_leaves_the_global_random_state_alone(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    before = torch.get_rng_state()
    weights.shuffle_denoiser(tiny_pipeline, 0)
    assert torch.equal(torch.get_rng_state(), before)
