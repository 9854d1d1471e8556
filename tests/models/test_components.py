"""Candidates that are the base with one network replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_classes import build
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models.components import Replacement, replace_network, replacement
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import networks

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "text_encoder/model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the same class with other weights; read only."""
    return build("sd1", tmp_path_factory.mktemp("other") / "sd1", seed=1)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("denoiser=a/b.safetensors", Replacement("denoiser", "a/b.safetensors")),
        ("text-encoder=owner/name", Replacement("text_encoder", "owner/name")),
        ("text-encoder-2=x=y", Replacement("text_encoder_2", "x=y")),
        ("text-encoder-3=x", Replacement("text_encoder_3", "x")),
        ("text-encoder-4=x", None),
        ("denoiser=", None),
        ("vae=x", None),
        ("method:uce", None),
        ("base", None),
        ("./folder", None),
    ],
)
def test_a_specification_names_the_component_and_the_source(
    candidate: str, expected: Replacement | None
) -> None:
    assert replacement(candidate) == expected


def weights_of(pipe: Any, name: str) -> dict[str, Tensor]:
    return dict(networks(pipe)[name].state_dict())


def sources(other: Path, tmp_path: Path, component: str) -> list[Path]:
    """A whole pipeline, the network's own folder, its file, and a file with the names of old."""
    part = "unet" if component == "denoiser" else "text_encoder"
    file = other / (UNET if component == "denoiser" else TEXT)
    plain = load_file(file)
    old = {f"text_model.{key}": value for key, value in plain.items()}
    save_file(plain if part == "unet" else old, tmp_path / "old.safetensors", {"format": "pt"})
    return [other, other / part, file, tmp_path / "old.safetensors"]


@pytest.mark.heavy
@pytest.mark.parametrize("component", ["denoiser", "text_encoder"])
@pytest.mark.parametrize("which", range(4))
def test_the_network_is_replaced_and_nothing_else(
    real_class: Callable[[str], Path], other: Path, tmp_path: Path, component: str, which: int
) -> None:
    source = sources(other, tmp_path, component)[which]
    pipe, theirs = load_pipeline(str(real_class("sd1"))), load_pipeline(str(other))
    before = {name: weights_of(pipe, name) for name in networks(pipe)}
    replace_network(pipe, Replacement(component, str(source)), "float32")
    replaced = "unet" if component == "denoiser" else component
    for name, old in before.items():
        expected = weights_of(theirs, name) if name == replaced else old
        found = weights_of(pipe, name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
    part = networks(pipe)[replaced]
    assert not part.training
    assert not any(parameter.requires_grad for parameter in part.parameters())


def test_a_file_counts_by_its_contents_and_a_pipeline_by_its_part(other: Path) -> None:
    file: Any = Replacement("text_encoder", str(other / TEXT)).recipe()
    part = Replacement("text_encoder", str(other)).recipe()
    assert part == Replacement("text_encoder", str(other / "text_encoder")).recipe()
    assert list(file["text_encoder"]["files"]) == ["model.safetensors"]
    assert file != part != Replacement("denoiser", str(other)).recipe()


def refusal(pipe: Any, component: str, source: Path) -> str:
    before = networks(pipe)
    with pytest.raises(UserError) as raised:
        replace_network(pipe, Replacement(component, str(source)), "float32")
    assert networks(pipe) == before
    return str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.popitem(), "1 missing"),
        (lambda t: t.update(extra=torch.ones(1)), "1 unexpected (extra)"),
        (lambda t: next(iter(t.values())).fill_(float("nan")), "holds NaN"),
        (lambda t: t.update({k: v[:1] for k, v in [next(iter(t.items()))]}), ""),
    ],
)
@pytest.mark.parametrize(("component", "file"), [("denoiser", UNET), ("text_encoder", TEXT)])
def test_weights_that_do_not_fit_are_refused_and_the_file_is_named(
    real_class: Callable[[str], Path],
    other: Path,
    tmp_path: Path,
    component: str,
    file: str,
    change: Callable[[dict[str, Tensor]], Any],
    said: str,
) -> None:
    weights = load_file(other / file)
    change(weights)
    path = tmp_path / "x.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, path, {"format": "pt"})
    message = refusal(load_pipeline(str(real_class("sd1"))), component, path)
    assert said in message
    assert str(path) in message


def test_what_is_no_such_network_is_refused(
    real_class: Callable[[str], Path], other: Path, tmp_path: Path
) -> None:
    pipe = load_pipeline(str(real_class("sd1")))
    sd2 = real_class("sd2")
    assert "has no text_encoder_2" in refusal(pipe, "text_encoder_2", other)
    assert "a pipeline without a text_encoder_3" in refusal(
        load_pipeline(str(real_class("sd3"))), "text_encoder_3", other
    )
    assert str(sd2 / "unet") in refusal(pipe, "denoiser", sd2)
    assert str(other / "vae") in refusal(pipe, "text_encoder", other / "vae")
    cut = shutil.copyfile(other / TEXT, tmp_path / "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:-1])
    assert f"{cut} is truncated" in refusal(pipe, "text_encoder", cut)
    assert "does not exist" in refusal(pipe, "text_encoder", Path("/nowhere"))


@pytest.mark.parametrize("name", ["sd3", "pixart"])
def test_t5_and_transformers_are_replaced_too(
    real_class: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    theirs = load_pipeline(str(build(name, tmp_path / name, seed=1)))
    pipe = load_pipeline(str(real_class(name)))
    encoder = "text_encoder_3" if name == "sd3" else "text_encoder"
    for component, part in ((encoder, encoder), ("denoiser", "transformer")):
        replace_network(pipe, Replacement(component, str(tmp_path / name)), "float32")
        expected = weights_of(theirs, part)
        assert all(torch.equal(t, expected[key]) for key, t in weights_of(pipe, part).items())
