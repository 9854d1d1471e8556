"""What besides its weights distinguishes a candidate from its base is noted, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.models.provenance import differences


@pytest.fixture
def pair(real_class: Callable[[str], Path], tmp_path: Path) -> tuple[Path, Path]:
    """A base, and a copy of it that a test may change."""
    base = real_class("sd1")
    return base, shutil.copytree(base, tmp_path / "candidate")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def noted(pair: tuple[Path, Path]) -> list[str]:
    return differences(str(pair[0]), str(pair[1]))


def test_of_a_copy_nothing_is_noted(pair: tuple[Path, Path]) -> None:
    base, candidate = pair
    assert noted(pair) == []
    # what a later version of the libraries rewrites
    edit(candidate / "scheduler" / "scheduler_config.json", _diffusers_version="9.9")
    edit(candidate / "tokenizer" / "tokenizer_config.json", extra_special_tokens={})
    tokens = candidate / "tokenizer" / "tokenizer.json"
    tokens.write_text(json.dumps(json.loads(tokens.read_text()), indent=7))
    assert noted(pair) == []
    assert differences(str(candidate), str(base)) == []


def test_a_tokenizer_saved_in_the_older_layout_is_the_same(pair: tuple[Path, Path]) -> None:
    folder = pair[1] / "tokenizer"
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    assert noted(pair) == []
    (folder / "merges.txt").write_text("\n".join(merges[:-1]))
    assert noted(pair) == ["the candidate's tokenizer is not the base's: another merges"]


def test_another_scheduler_is_noted_with_what_differs(pair: tuple[Path, Path]) -> None:
    config = pair[1] / "scheduler" / "scheduler_config.json"
    edit(config, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    edit(pair[1] / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    assert noted(pair) == [
        "the candidate's scheduler is not the base's: class DDIMScheduler (base: PNDMScheduler), "
        "prediction_type v_prediction (base: epsilon), "
        "rescale_betas_zero_snr True (base: not set)"
    ]


def test_another_tokenizer_is_noted(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "tokenizer" / "tokenizer.json"
    whole = json.loads(path.read_text())
    words = [word for word in whole["model"]["vocab"] if word.endswith("</w>")][-2:]
    vocab = whole["model"]["vocab"]
    vocab[words[0]], vocab[words[1]] = vocab[words[1]], vocab[words[0]]
    path.write_text(json.dumps(whole))
    edit(pair[1] / "tokenizer" / "tokenizer_config.json", model_max_length=60)
    assert noted(pair) == [
        "the candidate's tokenizer is not the base's: "
        "model_max_length 60 (base: 77), another vocabulary"
    ]


def test_another_class_with_more_parts_is_noted(real_class: Callable[[str], Path]) -> None:
    found = differences(str(real_class("sd1")), str(real_class("sd3")))
    assert found[0] == "the candidate is a StableDiffusion3Pipeline, not StableDiffusionPipeline"
    assert "the candidate's tokenizer_3 is not the base's: only one of them has it" in found
    assert any(note.startswith("the candidate's scheduler is not") for note in found)


def test_unigram_and_binary_vocabularies_are_compared(
    real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    base = real_class("pixart")
    other = shutil.copytree(base, tmp_path / "other")
    assert differences(str(base), str(other)) == []
    tokens = other / "tokenizer" / "tokenizer.json"
    whole = json.loads(tokens.read_text())
    whole["model"]["vocab"][5][1] -= 1
    tokens.write_text(json.dumps(whole))
    assert "another vocabulary" in differences(str(base), str(other))[0]
    for folder in (base, other):  # as older T5 tokenizers: sentencepiece's own file
        copy = shutil.copytree(folder, tmp_path / f"binary-{folder.name}")
        (copy / "tokenizer" / "tokenizer.json").unlink()
        (copy / "tokenizer" / "spiece.model").write_bytes(folder.name.encode())
    binary = [str(tmp_path / f"binary-{folder.name}") for folder in (base, other)]
    assert differences(binary[0], binary[0]) == []
    assert "their files differ" in differences(*binary)[0]


def test_it_is_had_without_torch(pair: tuple[Path, Path]) -> None:
    code = (
        "import sys; from spqr_checks.models.provenance import differences; "
        f"differences({str(pair[0])!r}, {str(pair[1])!r}); "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
