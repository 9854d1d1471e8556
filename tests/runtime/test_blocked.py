"""Images that the candidate's safety checker blocked: safe, counted, and paid for in utility."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkers import add_checker
from runs import UnsafeJudge, one_cell_session

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import JudgeError
from spqr_checks.generation.sampling import Drawn, generate
from spqr_checks.matrix import ALIGNED, BASE, Cell, Draw, State, Tuning
from spqr_checks.runtime.entries import VERDICT, judged, read_blocked, read_images, write_images

pytestmark = pytest.mark.usefixtures("one_thread")
N = 8


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> UnsafeJudge:
    judge = UnsafeJudge()
    monkeypatch.setattr("spqr_checks.judges.registry.load_judge", lambda *_, **__: judge)
    return judge


@pytest.fixture
def folder(real_class: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(real_class("sd1"), tmp_path / "candidate")


def session_of(folder: Path, base: Path, **settings: Any) -> MeasuringSession:
    return one_cell_session(folder, base, N, **({"safety_checker": True} | settings))


def draw_of(session: MeasuringSession, kind: str, state: State = ALIGNED) -> Draw:
    return Draw(state, session.run.matrix.select(kind)[0], N)


def with_checker(folder: Path, session: MeasuringSession, kind: str) -> list[bool]:
    """A checker that blocks some images of a draw; which, by the base without one."""
    draw = draw_of(session, kind)
    batches = session.units.batches(draw)
    prompts = [prompt for batch in batches for prompt in batch.prompts]
    seeds = [seed for batch in batches for seed in batch.seeds]
    from spqr_checks.models.pipelines import load_pipeline

    images = generate(load_pipeline(str(folder)), prompts, seeds, session.run.settings.sampler)
    blocked = add_checker(folder, images)
    assert 0 < sum(blocked) < N
    return blocked


@pytest.mark.heavy
def test_blocked_images_are_safe_and_are_not_shown_to_the_judge(
    folder: Path, tmp_path: Path, judge: UnsafeJudge
) -> None:
    blocked = with_checker(folder, session_of(tmp_path, folder), "harmful")
    session = session_of(tmp_path, folder)
    draw = draw_of(session, "harmful")
    flags = session.measurements.flags(draw)
    assert flags.flagged == tuple(not out for out in blocked)
    assert (flags.blocked, flags.n) == (sum(blocked), N)
    assert [image.flagged for image in flags.images] == list(flags.flagged)
    assert len(judge.shown) == N - sum(blocked)
    assert all(np.asarray(image).any() for image in judge.shown)
    assert session.measurements.blocked(draw) == sum(blocked)


@pytest.mark.heavy
def test_a_cell_says_how_many_were_blocked(
    folder: Path, tmp_path: Path, judge: UnsafeJudge
) -> None:
    out = sum(with_checker(folder, session_of(tmp_path, folder), "harmful"))
    session = session_of(tmp_path, folder)
    group = session.run.matrix.select("harmful")[0]
    category = session.run.prompts.categories[group.concept]
    cell = Cell("suppression", ALIGNED, group.concept, category, group.language, group.domain)
    _, result = session.checks.functions[cell.check](cell, 1)
    assert result.value == (N - out) / N
    assert result.details == {"flagged": N - out, "blocked": out}
    assert f"{N - out} of {N} images show it ({out} blocked)" in result.reason


@pytest.mark.heavy
def test_benign_images_that_are_blocked_are_black_in_the_utility_suites(
    folder: Path, tmp_path: Path, judge: UnsafeJudge
) -> None:
    blocked = with_checker(folder, session_of(tmp_path, folder), "benign")
    session = session_of(tmp_path, folder)
    draw = draw_of(session, "benign")
    assert session.measurements.blocked(draw) == sum(blocked)
    entries = [session.engine.require(session.units.images(b)) for b in session.units.batches(draw)]
    black = [not np.asarray(i).any() for entry in entries for i in read_images(entry)]
    assert black == blocked


@pytest.mark.heavy
def test_the_checker_belongs_to_the_candidate_alone(
    folder: Path, tmp_path: Path, judge: UnsafeJudge
) -> None:
    add_checker(folder, blocks_all=True)
    session = session_of(tmp_path, folder)
    assert session.measurements.flags(draw_of(session, "harmful", BASE)).blocked == 0
    assert session.measurements.flags(draw_of(session, "harmful")).blocked == N
    assert len(judge.shown) == N, "the judge is not asked where everything was blocked"
    states = session.states
    tuning = Tuning("lite", "stripes", 0)
    assert [states.checks(s) for s in (ALIGNED, State("aligned", tuning))] == [True, True]
    assert not any(states.checks(s) for s in (BASE, State("base", tuning), State("destroyed")))
    assert session.describe()["candidate"]["safety_checker"] is True


def test_without_the_setting_nothing_is_checked_or_written(
    folder: Path, tmp_path: Path, judge: UnsafeJudge
) -> None:
    add_checker(folder, blocks_all=True)
    session = session_of(tmp_path, folder, safety_checker=False)
    (batch,) = session.units.batches(replace(draw_of(session, "harmful"), n=4))
    entry = session.engine.require(session.units.images(batch))
    assert sorted(path.suffix for path in entry.glob("0*")) == [".png"] * 4
    assert not (entry / "blocked.json").exists()
    assert session.measurements.flags(draw_of(session, "harmful")).blocked == 0
    checked = session_of(tmp_path, folder)
    assert checked.states.recipe(ALIGNED) == session.states.recipe(ALIGNED)
    assert checked.states.drawn_recipe(ALIGNED) != session.states.drawn_recipe(ALIGNED)


def test_what_was_blocked_is_kept_beside_the_images(tmp_path: Path) -> None:
    assert read_blocked(tmp_path, 2) == [False, False]
    write_images(tmp_path, Drawn([], [True, False]), checked=True)
    assert read_blocked(tmp_path, 2) == [True, False]
    for text, n in (("[true]", 2), ("[1, 0]", 2), ("{}", 0), ("null", 0)):
        (tmp_path / "blocked.json").write_text(text)
        with pytest.raises(JudgeError, match="does not say for"):
            read_blocked(tmp_path, n)


def test_answers_keep_the_order_of_the_images() -> None:
    answers = judged("abcd", [False, True, False, True], lambda shown: [s.upper() for s in shown])
    assert answers == ["A", VERDICT, "C", VERDICT]
    assert judged("ab", [True, True], lambda _: pytest.fail("asked")) == [VERDICT] * 2
    assert json.loads(json.dumps(VERDICT))["unsafe"] is False
    for wrong in ([], ["x"] * 3):
        with pytest.raises(JudgeError, match=f"{len(wrong)} answers for 2 images"):
            judged("ab", [False, False], lambda _, wrong=wrong: wrong)
