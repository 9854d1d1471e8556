"""A guard before the candidate: what it blocks is black and safe, and is paid for in utility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import UnsafeJudge, one_cell_session

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import GuardError, JudgeError, UserError
from spqr_checks.guards import blocklist
from spqr_checks.matrix import ALIGNED, BASE, Draw, State, Tuning
from spqr_checks.preflight import preflight
from spqr_checks.runtime.entries import read_blocked, read_images, write_guarded
from spqr_checks.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")
N = 6


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> UnsafeJudge:
    judge = UnsafeJudge()
    monkeypatch.setattr("spqr_checks.judges.registry.load_judge", lambda *_, **__: judge)
    return judge


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Of the prompts of the hazard and of the benign ones, a part."""
    file = tmp_path / "words.txt"
    file.write_text("large\n")
    return file


def session_of(folder: Path, base: Path, **settings: Any) -> MeasuringSession:
    return one_cell_session(folder, base, N, **({"images_benign": N} | settings))


def draw_of(session: MeasuringSession, kind: str, state: State = ALIGNED) -> Draw:
    return Draw(state, session.run.matrix.select(kind)[0], N)


def prompts_of(session: MeasuringSession, draw: Draw) -> list[str]:
    return [prompt for batch in session.units.batches(draw) for prompt in batch.prompts]


def folders_of(session: MeasuringSession, draw: Draw) -> list[Path]:
    batches = session.units.batches(draw)
    return [session.engine.require(session.units.images(batch)) for batch in batches]


def test_blocked_prompts_are_safe_black_and_not_shown_to_the_judge(
    tiny_pipeline_dir: Path, tmp_path: Path, judge: UnsafeJudge, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    draw = draw_of(session, "harmful")
    out = ["large" in prompt for prompt in prompts_of(session, draw)]
    assert 0 < sum(out) < N
    flags = session.measurements.flags(draw)
    assert flags.flagged == tuple(not blocked for blocked in out)
    assert flags.blocked == session.measurements.blocked(draw) == sum(out)
    assert len(judge.shown) == N - sum(out)
    images = [image for folder in folders_of(session, draw) for image in read_images(folder)]
    assert [not np.asarray(image).any() for image in images] == out


def test_the_base_draws_without_guard_and_shares_its_images(
    tiny_pipeline_dir: Path, tmp_path: Path, judge: UnsafeJudge, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    assert session.measurements.flags(draw_of(session, "harmful", BASE)).blocked == 0
    plain = session_of(tmp_path, tiny_pipeline_dir)
    draws = [draw_of(one, "harmful", BASE) for one in (session, plain)]
    assert folders_of(session, draws[0]) == folders_of(plain, draws[1])


def test_another_guard_draws_nothing_again(
    tiny_pipeline_dir: Path, tmp_path: Path, judge: UnsafeJudge, words: Path
) -> None:
    draw_of(session := session_of(tmp_path, tiny_pipeline_dir), "harmful")
    folders_of(session, draw_of(session, "harmful"))
    guarded = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    made = [
        unit
        for b in guarded.units.batches(draw_of(guarded, "harmful"))
        for unit in (guarded.units.images(b), *guarded.units.images(b).needs)
        if guarded.run.store.path(unit.kind, unit.recipe) is None
    ]
    assert [unit.work().name for unit in made if unit.work] == ["guard"] * len(made)
    assert made


def test_images_are_kept_by_the_guard_that_let_them_through(
    tiny_pipeline_dir: Path, tmp_path: Path, words: Path
) -> None:
    recipes = []
    for word in ("large", "small"):
        words.write_text(word)
        session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
        batch = session.units.batches(draw_of(session, "harmful"))[0]
        recipes.append(session.units.images(batch).recipe)
    assert recipes[0] != recipes[1]


def test_fine_tuned_candidates_stand_behind_the_guard_too(
    tiny_pipeline_dir: Path, tmp_path: Path, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    tuned = State("aligned", Tuning("lite", "pastel", 0))
    for state, guarded in ((tuned, True), (State("base", tuned.tuning), False)):
        batch = session.units.batches(draw_of(session, "harmful", state))[0]
        assert session.units.images(batch).label.endswith("guarded") is guarded


def test_a_guard_that_cannot_answer_is_an_error_and_writes_nothing(
    tiny_pipeline_dir: Path,
    tmp_path: Path,
    judge: UnsafeJudge,
    words: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: Any, prompts: Sequence[str]) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(blocklist.Blocklist, "answer", fails)
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    with pytest.raises(GuardError, match="guard blocklist=.*: RuntimeError: out of order"):
        session.measurements.flags(draw_of(session, "harmful"))
    batch = session.units.batches(draw_of(session, "harmful"))[0]
    unit = session.units.images(batch)
    assert session.run.store.path(unit.kind, unit.recipe) is None
    assert judge.shown == []


@pytest.mark.heavy
def test_benign_prompts_that_are_blocked_cost_adherence(
    tiny_pipeline_dir: Path, tmp_path: Path, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    draw = draw_of(session, "benign")
    out = ["large" in prompt for prompt in prompts_of(session, draw)]
    assert any(out)
    assert session.measurements.blocked(draw) == sum(out)
    guarded = session.measurements.adherence(draw)
    plain = session_of(tmp_path, tiny_pipeline_dir)
    free = plain.measurements.adherence(draw_of(plain, "benign"))
    assert [a != b for a, b in zip(guarded, free, strict=True)] == out


def test_what_a_safety_checker_blocked_stays_blocked(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "guarded"
    for path in (source, folder):
        path.mkdir()
    for index in range(3):
        Image.new("RGB", (4, 4), "white" if index else "black").save(source / f"{index:03d}.png")
    (source / "blocked.json").write_text("[true, false, false]")
    write_guarded(folder, source, [False, True, False])
    assert read_blocked(folder, 3) == [True, True, False]
    assert [bool(np.asarray(image).any()) for image in read_images(folder)] == [False, False, True]
    with pytest.raises(JudgeError, match="2 answers of guards for 3 images"):
        write_guarded(folder, source, [False, True])


def test_a_guard_that_is_not_there_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(tmp_path, {"guard": "latent-guard=nowhere"})
    with pytest.raises(UserError, match="--spqr-guard: nowhere: no folder of a trained guard"):
        preflight(settings)
    assert not (tmp_path / ".spqr").exists()


def test_the_scorecard_says_which_guards_there_were(
    tiny_pipeline_dir: Path, tmp_path: Path, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    (guard,) = session.describe()["candidate"]["guards"]
    assert guard["guard"] == "blocklist"
    assert "guards" not in session_of(tmp_path, tiny_pipeline_dir).describe()["candidate"]


def test_a_guard_sees_the_attacked_prompt_and_not_what_it_was(
    tiny_pipeline_dir: Path, tmp_path: Path, judge: UnsafeJudge, words: Path
) -> None:
    found = tmp_path / "found.csv"
    rows = [f"{i},{'large ' * (i % 2)}strange {i},harmful,hazard,signs,en" for i in range(N)]
    found.write_text("\n".join(["id,prompt,kind,concept,category,language", *rows]), "utf-8")
    given = {"guard": f"blocklist={words}", "attacks": f"replay={found}"}
    session = session_of(tmp_path, tiny_pipeline_dir, **given)
    draw = replace(draw_of(session, "harmful"), attack="replay")
    attacked = session.measurements.attacked(draw)
    asked = [attacked[prompt].attacked for prompt in prompts_of(session, draw)]
    passed = tuple("large" not in text for text in asked)
    assert 0 < sum(passed) < N
    assert session.measurements.flags(draw).flagged == passed


def test_what_a_guard_blocks_is_safe_to_a_search_too_but_not_on_the_base(
    tiny_pipeline_dir: Path, tmp_path: Path, judge: UnsafeJudge, words: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, guard=f"blocklist={words}")
    for state, expected in ((ALIGNED, [0.0, 0.9]), (BASE, [0.9, 0.9])):
        target = session.units.attacks.target(state, 0)
        assert target.unsafe(["a large thing", "a small thing"]) == expected
        assert target.queries == 2
        answers = target.follows(["a large thing", "a small thing"], "a thing")
        assert [blocked for _, blocked in answers] == [one == 0.0 for one in expected]
