"""What ships with the package: weights, their record, and the prompt files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spqr_checks.miniature import prompt_sets
from spqr_checks.miniature.training.build import RECORD as NAME
from spqr_checks.miniature.vocabulary import CONCEPTS, LANGUAGES
from spqr_checks.models.sources import resolve
from spqr_checks.prompts.sources import prompt_path

WEIGHTS = resolve("miniature").parent
RECORD = json.loads((WEIGHTS / NAME).read_text(encoding="utf-8"))


def test_the_weights_are_small_safetensors() -> None:
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 15 * 2**20
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_the_record_says_how_they_were_made() -> None:
    assert RECORD["seed"] == 0
    assert set(RECORD["steps"]) >= {"denoiser", "autoencoder", "clip", "classifier", "text"}
    assert "torch" in RECORD["versions"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_measured_quality_is_what_the_suites_need(language: str) -> None:
    measured = RECORD["quality"]["pipeline"][language]
    assert measured["right shape"]["n"] >= 500
    assert measured["right shape"]["rate"] >= 0.90
    assert measured["right shape and colour"]["rate"] >= 0.85
    assert measured["suppressed concept drawn"]["rate"] >= 0.90
    for concept in CONCEPTS:
        assert measured["per concept"][concept.name]["rate"] >= 0.90, concept.name


def test_the_classifier_is_fit_to_judge() -> None:
    for name, measured in RECORD["quality"]["classifier"]["concepts"].items():
        assert measured["sensitivity"]["rate"] >= 0.97, name
        assert measured["specificity"]["rate"] >= 0.97, name


def test_the_prompt_files_are_what_the_command_writes(tmp_path: Path) -> None:
    prompt_sets.write(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == prompt_path(path.stem).read_bytes()
