"""Estimates price what adaptations train and draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import run_of

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.estimate import Estimate, Prices, estimate, plans, unpriced
from spqr_checks.store.timings import Timing

N = 6


def estimated(folder: Path, base: Path, adaptations: str) -> Estimate:
    """With every piece of work at 7 seconds, whatever its size."""
    given: dict[str, Any] = {
        "adaptations": adaptations,
        "adaptation": {"dreambooth": {"few": 3, "prior": 2}},
        "mode": "fixed",
        "concepts": "hazard",
        "languages": "en",
        "images": N,
        "images_gain": N,
        "profiles": "lite",
        "sampler": {"steps": 4, "guidance": 3.0, "batch": N},
    }
    session = MeasuringSession(run_of(folder, base, "method:uce", **given))
    works = [task.work for task in unpriced(plans(session)[-1], Prices([]))]
    prices = Prices([Timing(**dict(work), label="x", seconds=7) for work in works])
    return estimate(session, plans(session), prices, workers=1)


def made(found: Estimate, name: str) -> int:
    return sum(row.to_make[0] for row in found.rows if row.name == name)


@pytest.mark.heavy
def test_trainings_and_images_of_base_and_candidate_are_priced(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    plain = estimated(tmp_path, tiny_pipeline_dir, "")
    drawn = made(plain, "images")
    for adaptations, trained, more in (
        ("few-step", 0, 2 * N),  # both states under it
        ("dreambooth", 2, 3 * N),  # and images that are to show whether it learned
        ("dreambooth,few-step", 2, 5 * N),
    ):
        found = estimated(tmp_path, tiny_pipeline_dir, adaptations)
        rows = [row for row in found.rows if row.name == "adaptation dreambooth"]
        assert [row.to_make for row in rows] == [(trained,) * 3] * bool(trained)
        assert [row.seconds.expected for row in rows] == [7 * trained] * bool(trained)
        assert made(found, "images") - drawn >= more
