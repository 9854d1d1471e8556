"""Prompts must fit the text encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.tools.rewriting.token_limit import token_limits


@pytest.fixture
def pipeline_dir(clip_dir: Path, tmp_path: Path) -> Path:
    """The tokenizers of a pipeline with two text encoders of different length."""
    for name, length in (("tokenizer", 12), ("tokenizer_2", 8)):
        folder = tmp_path / "pipeline" / name
        folder.mkdir(parents=True)
        shutil.copy(clip_dir / "tokenizer.json", folder)
        config = json.loads((clip_dir / "tokenizer_config.json").read_text())
        config["model_max_length"] = length
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path / "pipeline"


def test_start_and_end_tokens_count(clip_dir: Path) -> None:
    (limit,) = token_limits(str(clip_dir), most=5)
    assert limit.count("red star") == 2 + 2
    assert limit.exceeded_by("red red star") is None
    assert limit.exceeded_by("red red red star") == 6


def test_every_tokenizer_of_a_pipeline_has_its_own_limit(pipeline_dir: Path) -> None:
    one, two = token_limits(str(pipeline_dir))
    assert (one.most, two.most) == (12, 8)
    text = "red " * 8
    assert one.exceeded_by(text) is None
    assert two.exceeded_by(text) == 10
    assert [limit.most for limit in token_limits(str(pipeline_dir), 5)] == [5, 5]


def test_the_recipe_follows_the_tokenizer_and_the_limit(pipeline_dir: Path) -> None:
    recipes = [limit.recipe for limit in token_limits(str(pipeline_dir))]
    assert recipes[0] != recipes[1]
    assert token_limits(str(pipeline_dir))[0].recipe == recipes[0]
    assert token_limits(str(pipeline_dir), 5)[0].recipe != recipes[0]


def test_a_tokenizer_without_a_length_needs_one(pipeline_dir: Path) -> None:
    path = pipeline_dir / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="states no length"):
        token_limits(str(pipeline_dir))
    assert token_limits(str(pipeline_dir), 77)[0].most == 77


def test_mistakes_are_named(tmp_path: Path, pipeline_dir: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no tokenizer in"):
        token_limits(str(empty))
    with pytest.raises(UserError, match="at least 1"):
        token_limits(str(pipeline_dir), 0)
    (pipeline_dir / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        token_limits(str(pipeline_dir))
