"""Estimates price attacks, and a probe times one prompt of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from runs import run_of

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.estimate import Prices, estimate, plans, unpriced
from spqr_checks.estimate.probe import attack_seconds, probe
from spqr_checks.store.timings import Timing, Work

MMA: dict[str, Any] = {"tokens": 4, "top": 8, "candidates": 8}


def session_of(folder: Path, base: Path, steps: int, **settings: Any) -> MeasuringSession:
    given = {
        "attacks": "mma",
        "attack": {"mma": MMA | {"steps": steps}},
        "attack_prompts": 3,
        "mode": "fixed",
        "concepts": "hazard",
        "languages": "en",
        "profiles": "",
    }
    return MeasuringSession(run_of(folder, base, "method:uce", **(given | settings)))


def work_of(session: MeasuringSession) -> Work:
    works = [task.work for task in unpriced(plans(session)[-1], Prices([]))]
    return next(work for work in works if work.name == "attack mma")


def test_every_attacked_prompt_of_base_and_candidate_is_priced(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, 2)
    timing = Timing(**dict(work_of(session)), label="x", seconds=7)
    found = estimate(session, plans(session), Prices([timing]), workers=1)
    (row,) = [row for row in found.rows if row.name == "attack mma"]
    assert row.to_make == (6, 6, 6)
    assert row.seconds.expected == 42


def test_another_option_is_another_price(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    one, other = (work_of(session_of(tmp_path, tiny_pipeline_dir, steps)) for steps in (2, 3))
    assert one.by != other.by


@pytest.mark.trains
def test_a_probe_of_an_attack_is_continued_on_paper(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, 50_000)
    start = time.monotonic()
    found = attack_seconds(session, work_of(session), start)
    took = time.monotonic() - start
    assert found is not None
    assert found > 20 * took
    short = session_of(tmp_path, tiny_pipeline_dir, 2)
    (timing,) = probe(short, [work_of(short)], budget=30)
    assert (timing.name, timing.images) == ("attack mma", 1)
    assert 0 < timing.seconds < 60
