"""What fine-tuning sets are called in the ids of cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.runtime.run import Run, dataset_labels
from spqr_checks.settings import load_settings


@pytest.mark.parametrize(
    ("specs", "labels"),
    [
        (["miniature:stripes", "data/birds/"], ["stripes", "birds"]),
        (
            ["miniature:outline:600:en", "miniature:outline:600:en+hi"],
            ["outline_600_en", "outline_600_en_hi"],
        ),
        (["/data/a/birds", "b/birds/", "c/boats"], ["a_birds", "b_birds", "boats"]),
        (["hf://datasets/me/birds@1a2b", "birds"], ["me_birds", "birds"]),
    ],
)
def test_sets_with_one_short_name_have_longer_ones(specs: list[str], labels: list[str]) -> None:
    assert dataset_labels(specs) == dict(zip(labels, specs, strict=True))


def test_one_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name each once"):
        Run.from_settings(load_settings(tmp_path, {"datasets": "a/birds,a/birds/"}))


def test_one_style_in_two_choices_of_languages_are_two_sets(tmp_path: Path) -> None:
    sets = "miniature:outline:600:en,miniature:outline:600:en+hi"
    run = Run.from_settings(load_settings(tmp_path, {"datasets": sets, "preset": "miniature"}))
    tuned = {cell.state.tuning.dataset for cell in run.matrix.cells if cell.state.tuning}
    assert tuned == {"outline_600_en", "outline_600_en_hi"}
