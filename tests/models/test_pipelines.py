"""Pipelines from safetensors: ready and silent, or a refusal that names the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline, quiet
from spqr_checks.models.weights import networks

if TYPE_CHECKING:
    from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """A saved tiny pipeline that a test may damage."""
    return shutil.copytree(tiny_pipeline_dir, tmp_path / "pipeline")


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def transformer_pipeline() -> PixArtAlphaPipeline:
    """A small pipeline with a transformer, and a T5 whose tied embedding is saved once."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        PixArtAlphaPipeline,
        PixArtTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    from spqr_checks.miniature.tokenizer import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(0, captions=50)
    return PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
            )
        ),
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4),
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=4,
            num_attention_heads=2,
            caption_channels=8,
            cross_attention_dim=8,
            use_additional_conditions=False,
        ),
        scheduler=DDIMScheduler(),
    )


# ---- what is loaded ---------------------------------------------------------------------------


def test_a_loaded_pipeline_is_the_saved_one_frozen_and_in_evaluation_mode(
    tiny_pipeline_dir: Path, tiny_pipeline: StableDiffusionPipeline
) -> None:
    pipe = load_pipeline(str(tiny_pipeline_dir))
    assert type(pipe) is type(tiny_pipeline)
    parts = networks(pipe)
    assert parts.keys() == {"vae", "text_encoder", "unet"}
    for name, part in parts.items():
        saved = getattr(tiny_pipeline, name).state_dict()
        assert part.state_dict().keys() == saved.keys()
        assert all(torch.equal(tensor, saved[key]) for key, tensor in part.state_dict().items())
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert pipe.safety_checker is None
    assert pipe._progress_bar_config == {"disable": True}
    mine, theirs = (
        {key: value for key, value in p.scheduler.config.items() if key[0] != "_"}
        for p in (pipe, tiny_pipeline)
    )
    assert mine == theirs
    saved_tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_pipeline_dir / "tokenizer")
    assert pipe.tokenizer.get_vocab() == saved_tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_every_network_has_the_dtype_asked_for(tiny_pipeline_dir: Path, name: str) -> None:
    pipe = load_pipeline(str(tiny_pipeline_dir), dtype=name)
    dtypes = {p.dtype for part in networks(pipe).values() for p in part.parameters()}
    assert dtypes == {getattr(torch, name)}


def test_the_result_does_not_depend_on_the_global_random_state(tiny_pipeline_dir: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_pipeline(str(tiny_pipeline_dir))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pipeline_with_a_transformer_and_tied_weights_is_loaded(tmp_path: Path) -> None:
    made = transformer_pipeline()
    made.save_pretrained(tmp_path / "pixart")
    pipe = load_pipeline(str(tmp_path / "pixart"))
    assert type(pipe) is type(made)
    for name, part in networks(pipe).items():
        saved = getattr(made, name).state_dict()
        assert all(torch.equal(tensor, saved[key]) for key, tensor in part.state_dict().items())


def test_a_safety_checker_is_left_out_without_being_read(folder: Path) -> None:
    edit_json(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    pipe = load_pipeline(str(folder))
    assert pipe.safety_checker is None
    assert pipe.feature_extractor is None


@pytest.mark.parametrize("size", ["10GB", "100KB"])
def test_a_loader_that_reads_something_else_than_the_file_says_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    size: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "p", max_shard_size=size)
    read = diffusers.UNet2DConditionModel.from_pretrained

    def shifted(*args: Any, **given: Any) -> Any:
        network, account = read(*args, **given)
        for tensor in network.state_dict().values():
            tensor += 1e-3
        return network, account

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "from_pretrained", shifted)
    with pytest.raises(UserError, match="was not loaded as it stands in .*safetensors"):
        load_pipeline(str(tmp_path / "p"))


def test_sharded_weights_are_loaded(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "p", max_shard_size="100KB")
    assert len(list((tmp_path / "p" / "unet").glob("*.safetensors"))) > 1
    loaded = load_pipeline(str(tmp_path / "p")).unet.state_dict()
    saved = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


@pytest.mark.parametrize("size", ["10GB", "100KB"])
def test_weights_of_which_only_a_variant_is_there_are_loaded(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, size: str
) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "p", variant="fp16", max_shard_size=size)
    loaded = load_pipeline(str(tmp_path / "p")).unet.state_dict()
    saved = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_of_a_plain_file_and_a_variant_the_plain_one_is_taken(folder: Path) -> None:
    variant = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(folder / UNET, variant)
    rewrite(variant, lambda tensors: [tensor.zero_() for tensor in tensors.values()])
    assert bool(load_pipeline(str(folder)).unet.state_dict()["conv_in.weight"].any())


def test_keys_that_the_libraries_know_to_be_obsolete_are_no_error(folder: Path) -> None:
    """Text encoders of the first releases carry position_ids, which is a constant."""
    key = "text_model.embeddings.position_ids"
    rewrite(folder / TEXT, lambda tensors: tensors.update({key: torch.arange(32)[None]}))
    load_pipeline(str(folder))


# ---- silence ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_loading_says_nothing_from_a_fresh_process_on(folder: Path) -> None:
    edit_json(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    code = (
        "from spqr_checks.models.pipelines import load_pipeline; "
        f"load_pipeline({str(folder)!r}, 'float16')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_quiet_gives_back_what_it_found() -> None:
    logs = (diffusers.utils.logging, transformers.utils.logging)
    for log in logs:
        log.set_verbosity_info()
        log.enable_progress_bar()
    inside: list[tuple[int, bool]] = []

    def fail() -> None:
        with quiet():
            inside.extend((log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(40, False), (40, False)]
    assert [log.get_verbosity() for log in logs] == [20, 20]
    assert [log.is_progress_bar_enabled() for log in logs] == [True, True]
    for log in logs:
        log.set_verbosity_warning()


# ---- what is refused --------------------------------------------------------------------------


def refusal(folder: Path, **given: str) -> str:
    with pytest.raises(UserError) as raised:
        load_pipeline(str(folder), **given)
    message = str(raised.value)
    assert 1 <= len(message.splitlines()) <= 2
    return message


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors[next(key for key in sorted(tensors) if key.endswith("weight"))]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["left.over"] = torch.zeros(2)


def resize(tensors: dict[str, Tensor]) -> None:
    key = next(key for key in sorted(tensors) if key.endswith("weight"))
    tensors[key] = torch.zeros(3, 3)


def spoil(tensors: dict[str, Tensor]) -> None:
    tensors[sorted(tensors)[0]].view(-1)[0] = float("nan")


@pytest.mark.parametrize("name", [UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, ("1 missing (", "config.json")),
        (add, ("1 unexpected (left.over)", "config.json")),
        (resize, ("save_pretrained",)),
        (spoil, ("holds NaN or infinite values",)),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(
    folder: Path, name: str, change: Callable[[dict[str, Tensor]], None], said: tuple[str, ...]
) -> None:
    rewrite(folder / name, change)
    message = refusal(folder)
    assert str((folder / name).parent) in message
    assert all(part in message for part in said)


def test_the_config_of_another_architecture_is_refused(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", layers_per_block=2)
    assert f"{folder / 'unet'} cannot be loaded" in refusal(folder)


@pytest.mark.parametrize(("name", "keep"), [(UNET, -1), (TEXT, -1), (UNET, 500), (TEXT, 0)])
def test_a_truncated_file_is_named(folder: Path, name: str, keep: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(folder)
    assert str(path) in message
    assert "truncated" in message


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_a_component_without_weights_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{(folder / name).parent} holds no safetensors weights" in refusal(folder)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "scheduler", "tokenizer"])
def test_a_missing_component_is_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    assert f"{folder / name} is missing, but model_index.json names it" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize("text", [None, "{"])
def test_a_missing_or_broken_config_is_refused(folder: Path, name: str, text: str | None) -> None:
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    assert str(folder) in refusal(folder)


def test_a_missing_tokenizer_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert str(folder) in refusal(folder)


def test_a_tokenizer_that_needs_an_extra_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("`tiktoken` is required to read a `tiktoken` file.")

    monkeypatch.setattr("spqr_checks.models.pipelines.DiffusionPipeline.from_pretrained", fail)
    assert "pip install 'spqr-checks[sentencepiece]'" in refusal(folder)


def test_a_missing_shard_is_refused(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "p", max_shard_size="100KB")
    next((tmp_path / "p" / "unet").glob("*-00002-of-*.safetensors")).unlink()
    assert str(tmp_path / "p" / "unet") in refusal(tmp_path / "p")


def test_a_folder_that_is_no_pipeline_is_refused(folder: Path) -> None:
    assert "model_index.json is missing" in refusal(folder / "unet")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"a"', "\xff"])
def test_an_index_that_cannot_be_understood_is_refused(folder: Path, text: str) -> None:
    (folder / "model_index.json").write_text(text, encoding="latin-1")
    assert "model_index.json cannot be understood" in refusal(folder)


def test_an_index_without_a_component_that_the_class_needs_is_refused(folder: Path) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    del index["unet"]
    path.write_text(json.dumps(index))
    assert f"{path} names no unet, which StableDiffusionPipeline needs" in refusal(folder)


@pytest.mark.parametrize("name", ["MyPipeline", "UNet2DConditionModel", "logging", None])
def test_a_class_that_is_no_pipeline_of_diffusers_is_refused(
    folder: Path, name: str | None
) -> None:
    edit_json(folder / "model_index.json", _class_name=name)
    assert f"{name!r} is no pipeline of diffusers" in refusal(folder)


@pytest.mark.parametrize(
    "entry", [["my_module", "MyUNet"], ["diffusers", "MyUNet"], ["os", "system"]]
)
def test_code_that_comes_with_a_model_is_never_run(folder: Path, entry: list[str]) -> None:
    edit_json(folder / "model_index.json", unet=entry)
    (folder / "unet" / "my_module.py").write_text("raise SystemExit('was run')")
    message = refusal(folder)
    assert f"unet is a {entry[0]}.{entry[1]}" in message
    assert "never run" in message


def test_a_pipeline_that_draws_without_a_denoiser_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Latents(diffusers.DiffusionPipeline):  # type: ignore[misc]
        def __init__(self, vae: nn.Module) -> None:
            super().__init__()
            self.register_modules(vae=vae)

    monkeypatch.setattr(diffusers, "Latents", Latents, raising=False)
    edit_json(folder / "model_index.json", _class_name="Latents")
    assert "neither a unet nor a transformer" in refusal(folder)


def test_a_single_file_is_refused_with_the_command_that_makes_a_folder(folder: Path) -> None:
    message = refusal(folder / UNET)
    assert "is a single file; a pipeline folder is needed" in message
    assert message.splitlines()[1].startswith(f"spqr convert {folder / UNET} --out ")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "is a pickle" in refusal(folder)


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    assert "unknown dtype 'int8'; use one of float32" in refusal(folder, dtype="int8")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(folder: Path, device: str) -> None:
    assert f"cannot be put on {device!r}" in refusal(folder, device=device)
