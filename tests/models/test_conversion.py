"""`spqr convert`: pickles and single files become safetensors, or nothing is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compvis import whole_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.cli import main as cli
from spqr_checks.errors import UserError
from spqr_checks.models.components import Replacement, replace_network
from spqr_checks.models.conversion import convert
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import networks

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = Path(cli.__file__).parents[1]


class Trap:
    """Says so if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def same(one: Any, other: Any) -> bool:
    return networks(one).keys() == networks(other).keys() and all(
        part.state_dict().keys() == networks(other)[name].state_dict().keys()
        and all(
            torch.equal(tensor, networks(other)[name].state_dict()[key])
            for key, tensor in part.state_dict().items()
        )
        for name, part in networks(one).items()
    )


@pytest.fixture(scope="module")
def plain(real_class: Callable[[str], Path]) -> Any:
    return load_pipeline(str(real_class("sd1")))


@pytest.fixture(scope="module")
def whole(plain: Any) -> dict[str, Tensor]:
    """The same weights under the names of a CompVis checkpoint."""
    return whole_checkpoint(plain)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["ckpt", "nested", "safetensors"])
def test_a_whole_checkpoint_becomes_the_pipeline_that_it_was(
    real_class: Callable[[str], Path],
    plain: Any,
    whole: dict[str, Tensor],
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / ("v1.safetensors" if kind == "safetensors" else "v1.ckpt")
    if kind == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in whole.items()}, file)
    else:
        torch.save({"state_dict": whole, "epoch": 3} if kind == "nested" else whole, file)
    command = ["convert", str(file), "--out", str(tmp_path / "v1"), "--config"]
    assert cli.main([*command, str(real_class("sd1"))]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "v1")
    made = load_pipeline(str(tmp_path / "v1"))
    assert type(made) is type(plain)
    assert same(made, plain)
    assert made.tokenizer("a red circle").input_ids == plain.tokenizer("a red circle").input_ids
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, "v1"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("model.diffusion_model.out.2.weight"), "does not hold what"),
        (lambda w: w.update({"model.diffusion_model.x": torch.ones(1)}), "numbers, the config"),
        (lambda w: w["first_stage_model.quant_conv.bias"].fill_(float("nan")), "NaN or infinite"),
        (lambda w: w.pop("first_stage_model.decoder.norm_out.weight"), "does not"),
        (
            lambda w: w.pop("cond_stage_model.transformer.text_model.final_layer_norm.bias"),
            "does not",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fill_the_pipeline_is_refused_and_nothing_stays(
    real_class: Callable[[str], Path],
    whole: dict[str, Tensor],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], Any],
    said: str,
) -> None:
    weights = {key: tensor.clone() for key, tensor in whole.items()}
    change(weights)
    torch.save(weights, tmp_path / "v1.ckpt")
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "v1.ckpt", tmp_path / "v1", str(real_class("sd1")))
    assert [path.name for path in tmp_path.iterdir()] == ["v1.ckpt"]


def test_configurations_that_cannot_be_had_are_asked_for(
    whole: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    torch.save(whole, tmp_path / "v1.ckpt")
    with pytest.raises(UserError, match="cannot be had.*\nGive --config the folder"):
        convert(tmp_path / "v1.ckpt", tmp_path / "v1")


def test_a_denoisers_state_dict_becomes_a_file_that_a_candidate_can_be_made_of(
    real_class: Callable[[str], Path], plain: Any, tmp_path: Path
) -> None:
    weights = {key: tensor + 1 for key, tensor in plain.unet.state_dict().items()}
    torch.save(weights, tmp_path / "esd.pt")
    written = convert(tmp_path / "esd.pt", tmp_path / "esd")
    assert written == tmp_path / "esd" / "esd.safetensors"
    pipe = load_pipeline(str(real_class("sd1")))
    replace_network(pipe, Replacement("denoiser", str(written)), "float32")
    assert all(torch.equal(t, weights[key]) for key, t in pipe.unet.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_part_of_a_denoiser_is_completed_from_the_pipeline_that_it_belongs_to(
    real_class: Callable[[str], Path], plain: Any, tmp_path: Path, suffix: str
) -> None:
    own = plain.unet.state_dict()
    part = {key: (tensor + 1).bfloat16() for key, tensor in own.items() if "attn2.to_k" in key}
    file = tmp_path / f"x{suffix}"
    (torch.save if suffix == ".pt" else save_file)(part, file)
    written = convert(file, tmp_path / "x", str(real_class("sd1")))
    found = load_file(written)
    assert found.keys() == own.keys()
    assert 0 < len(part) < len(own)
    for key, tensor in found.items():
        assert tensor.dtype == own[key].dtype
        assert torch.equal(tensor, part[key].float() if key in part else own[key]), key
    pipe = load_pipeline(str(real_class("sd1")))
    replace_network(pipe, Replacement("denoiser", str(written)), "float32")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(extra=torch.ones(1)), "no part of the denoiser .* unexpected .extra"),
        (lambda t: t.update({key: value[:1] for key, value in t.items()}), "another architecture"),
        (lambda t: next(iter(t.values())).fill_(float("nan")), "NaN"),
    ],
)
def test_what_is_no_part_of_the_denoiser_is_refused(
    real_class: Callable[[str], Path],
    plain: Any,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], Any],
    said: str,
) -> None:
    part = {k: t.clone() for k, t in plain.unet.state_dict().items() if "attn2.to_k" in k}
    change(part)
    save_file({k: t.contiguous() for k, t in part.items()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "x.safetensors", tmp_path / "x", str(real_class("sd1")))
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def pickled(folder: Path, source: Path, shards: bool = False) -> Path:
    """The pipeline as older versions of the libraries saved it."""
    shutil.copytree(source, folder)
    for path in folder.rglob("*.safetensors"):
        weights = load_file(path)
        theirs = path.name == "model.safetensors"
        stem = "pytorch_model" if theirs else path.stem
        if shards:
            names = [f"{stem}-0000{i}-of-00002.bin" for i in (1, 2)]
            keys = sorted(weights)
            parts = [keys[::2], keys[1::2]]
            for name, part in zip(names, parts, strict=True):
                torch.save({key: weights[key] for key in part}, path.parent / name)
            index = {
                "metadata": {"total_size": 0},
                "weight_map": {k: n for n, part in zip(names, parts, strict=True) for k in part},
            }
            (path.parent / f"{stem}.bin.index.json").write_text(json.dumps(index))
        else:
            torch.save(weights, path.parent / f"{stem}.bin")
        path.unlink()
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("name", ["sd1", "pixart"])
def test_a_pipeline_of_pickles_is_copied_with_safetensors(
    real_class: Callable[[str], Path], tmp_path: Path, name: str, shards: bool
) -> None:
    old = pickled(tmp_path / "old", real_class(name), shards)
    (old / "training.ckpt").write_bytes(b"no loader reads this")
    with pytest.raises(UserError, match="is a pickle"):
        load_pipeline(str(old))
    assert convert(old, tmp_path / "new") == tmp_path / "new"
    assert same(load_pipeline(str(tmp_path / "new")), load_pipeline(str(real_class(name))))
    assert not [p for p in (tmp_path / "new").rglob("*") if p.suffix in (".bin", ".ckpt")]


def test_a_pickle_that_does_more_than_hold_weights_does_not_get_to_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(1), "trap": Trap()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds more than weights, which is never loaded"):
        convert(tmp_path / "a.pt", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"vae": {"w": torch.ones(1)}}, "'vae' is a dict, not a tensor"),
        ({"w": torch.ones(1), "epoch": 3}, "'epoch' is a int, not a tensor"),
        ([torch.ones(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"w": torch.tensor([float("inf")])}, "w holds NaN or infinite values"),
    ],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "a.pt", tmp_path / "out" / "a")
    assert not (tmp_path / "out" / "a").exists()


def test_files_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"not a pickle")
    (tmp_path / "a.txt").write_text("x")
    save_file({"w": torch.ones(1)}, tmp_path / "b.safetensors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for name, said in (
        ("a.pt", "holds more than weights|cannot be read as weights"),
        ("a.txt", "give a .safetensors file or one of"),
        ("b.safetensors", "is safetensors already.*denoiser=FILE"),
        ("nowhere.pt", "does not exist"),
        ("full", "nothing to convert"),
    ):
        with pytest.raises(UserError, match=said):
            convert(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="already there and not empty"):
        convert(tmp_path / "a.pt", tmp_path / "full")


def test_pickles_are_opened_here_and_nowhere_else() -> None:
    opened = {
        path.relative_to(PACKAGE).as_posix(): re.findall(r"(?:torch|pickle)\.loads?\([^)]*\)", text)
        for path in PACKAGE.rglob("*.py")
        if re.search(r"(torch|pickle)\.loads?\(", text := path.read_text(encoding="utf-8"))
    }
    assert list(opened) == ["models/conversion.py"]
    assert all(
        "weights_only=True" in call for call in opened["models/conversion.py"] if "," in call
    )
