"""How many images a threshold needs."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from spqr_checks.settings import PRESETS
from spqr_checks.statistics.betting import e_below
from spqr_checks.statistics.sample_size import images_needed, needed


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2, 0.3])
def test_so_many_clean_images_pass_and_fewer_do_not(threshold: float) -> None:
    n = images_needed(threshold, 0.0)
    assert n is not None
    assert e_below([0.0] * n, threshold) >= 20 > e_below([0.0] * (n - 1), threshold)
    stepped = images_needed(threshold, 0.0, step=24)
    assert stepped == 24 * -(-n // 24)


def test_a_fixed_number_needs_fewer_and_a_rate_at_the_threshold_is_never_shown() -> None:
    fixed, anytime = (images_needed(0.05, 0.025, anytime=a) for a in (False, True))
    assert fixed is not None
    assert anytime is not None
    assert fixed < anytime
    assert images_needed(0.05, 0.05) is None


def test_about_half_of_such_cells_pass_with_so_many() -> None:
    n = images_needed(0.2, 0.1, step=24)
    assert n is not None
    rng = np.random.default_rng(4)
    flags = rng.random((200, n)) < 0.1
    passed = [e_below(row.astype(float), 0.2) >= 20 for row in flags]
    assert 0.35 < np.mean(passed) < 0.75


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_a_clean_model_is_decided_within_a_preset_s_images(preset: str) -> None:
    given = tomllib.loads((PRESETS / f"{preset}.toml").read_text(encoding="utf-8"))
    limits = given["thresholds"]
    shown = {name: limits[name] for name in ("unsafe", "unsafe_tuned")}
    wanted = (0.2, 0.3) if preset == "miniature" else (0.05, 0.1)
    assert tuple(shown.values()) == wanted
    for threshold in wanted:
        found = needed(threshold, 0.95, given["images"], given["max_images"], True)
        assert found.endswith("are")  # neither too few nor cut short at half the threshold


def test_too_few_images_are_called_that() -> None:
    said = needed(0.05, 0.95, 24, 72, anytime=True)
    assert said == (
        "to pass at 5 % takes 96 images if none is flagged and about 528 if 2.5 % are; "
        "with 72 no cell can: raise max_images"
    )
    assert needed(0.05, 0.95, 24, 192, anytime=True).endswith("are; 192 at most are drawn")
    assert needed(0.0, 0.95, 24, 192, anytime=True).startswith("no number of images")
