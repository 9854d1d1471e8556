"""open_clip: what needs no package here, and the library itself where it is installed."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.adherence import adherence_scores
from spqr_checks.metrics.adherence.open_clip import OpenClip, load_open_clip
from spqr_checks.metrics.recipe import adherence_recipe

SMALL = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
}
PROMPTS = ["a red circle", "a blue star", "a tree", "a green house", "a ring"]


def folder_with(folder: Path, config: Any) -> Path:
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    return folder


class Stand:
    """As much of an open_clip model as is called, with embeddings that are known."""

    def __init__(self, seen: torch.Tensor, said: torch.Tensor) -> None:
        self.seen, self.said = iter(seen.split(64)), iter(said.split(64))

    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        assert pixels.shape[1:] == (3, 4, 4)
        return next(self.seen)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return next(self.said)


def stand(seen: torch.Tensor, said: torch.Tensor) -> OpenClip:
    def preprocess(image: Image.Image) -> torch.Tensor:
        assert image.mode == "RGB"
        return torch.zeros(3, 4, 4)

    return OpenClip(Stand(seen, said), preprocess, lambda t: torch.zeros(len(t), 7), "cpu")


def test_scores_are_cosines_in_order_over_several_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, said = (
        torch.nn.functional.normalize(torch.randn(70, 8, generator=generator), dim=-1)
        for _ in range(2)
    )
    images = [Image.new("L", (8, 8))] * 70
    found = stand(seen, said).scores(images, ["a"] * 70)
    assert found == pytest.approx((seen * said).sum(-1).tolist(), abs=1e-6)


def test_an_embedding_of_nan_is_an_error() -> None:
    good, bad = torch.ones(2, 4), torch.tensor([[1.0] * 4, [float("nan")] * 4])
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(JudgeError, match="NaN"):
            stand(*pair).scores([Image.new("RGB", (8, 8))] * 2, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ({"hf_model_name": "roberta-base"}, "that of 'roberta-base', which open_clip would fetch"),
        ({"tokenizer_kwargs": {"trust_remote_code": True}}, "asks for code of its own"),
    ],
)
def test_what_would_be_fetched_or_run_is_refused(
    text: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=what):
        load_open_clip(str(folder_with(tmp_path, {"model_cfg": {"text_cfg": text}})), "cpu")


def test_a_folder_in_another_format_is_refused(tmp_path: Path, clip_dir: Path) -> None:
    with pytest.raises(UserError, match=r"no open_clip_config\.json; a model in open_clip's"):
        load_open_clip(str(clip_dir), "cpu")
    with pytest.raises(UserError, match=r"open_clip_config\.json cannot be read"):
        load_open_clip(str(folder_with(tmp_path, [])), "cpu")


def test_it_is_loaded_by_the_library_from_that_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Model:
        def eval(self) -> Model:
            return self

    def create(name: str, **options: Any) -> tuple[Model, str]:
        asked.append((name, options))
        return Model(), "preprocess"

    library = SimpleNamespace(
        create_model_from_pretrained=create, get_tokenizer=lambda name: f"tokenizer of {name}"
    )
    monkeypatch.setitem(sys.modules, "open_clip", library)
    loaded = load_open_clip(str(folder_with(tmp_path, SMALL)), "cpu")
    assert asked == [(f"local-dir:{tmp_path}", {"precision": "fp32", "device": "cpu"})]
    assert loaded.tokenizer == f"tokenizer of local-dir:{tmp_path}"


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(folder_with(tmp_path, SMALL))
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"pip install 'spqr-checks\[open-clip\]'"):
        load_open_clip(folder, "cpu")
    try:
        version("open-clip-torch")
    except PackageNotFoundError:
        with pytest.raises(UserError, match=r"needs open-clip-torch.*\[open-clip\]'"):
            adherence_recipe(f"open_clip={folder}", "")


def test_it_is_the_cosine_of_the_library(tmp_path: Path, pictures: list[Image.Image]) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(SMALL))
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(PROMPTS)
    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=True)
        said = model.encode_text(tokens, normalize=True)
    found = adherence_scores(pictures, PROMPTS, f"open_clip={tmp_path}", "")
    assert found == pytest.approx((seen * said).sum(-1).tolist(), abs=1e-5)
    del weights["logit_scale"]
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="cannot be loaded by open_clip"):
        adherence_scores(pictures, PROMPTS, f"open_clip={tmp_path}", "")
