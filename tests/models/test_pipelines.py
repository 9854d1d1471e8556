"""Pipelines from safetensors: whole, ready and silent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
import transformers
from saved import TEXT, UNET, edit_json, rewrite

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline, quiet
from spqr_checks.models.weights import networks

if TYPE_CHECKING:
    from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline


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
