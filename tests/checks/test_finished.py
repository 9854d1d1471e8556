"""When a finished run's scorecard stands for the run, and when it must not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import BASE_SETTINGS, fill

from spqr_checks.checks import finished
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.request import Rules, ScoreRequest
from spqr_checks.scoring.scorecard import Scorecard, score
from spqr_checks.scoring.serialize import to_json
from spqr_checks.settings import load_settings
from spqr_checks.store.store import entry_key

SETTINGS: dict[str, Any] = BASE_SETTINGS | {"candidate": "method:uce"}


def opened(folder: Path, **settings: Any) -> MeasuringSession:
    """The run as another process finds it, its store as it is."""
    given = SETTINGS | {"store": str(folder / ".spqr")} | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def scored(session: MeasuringSession, results: list[CellResult]) -> Scorecard:
    settings, described = session.run.settings, session.describe()
    request = ScoreRequest(
        matrix=session.run.matrix,
        results=results,
        **described,
        settings=settings.measured(),
        protocol=settings.protocol,
        min_score=settings.min_score,
        min_coverage=settings.min_coverage,
        rules=Rules(settings.level, settings.multiplicity, settings.inconclusive, 1),
    )
    return score(request)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scorecard]:
    folder = tmp_path_factory.mktemp("finished")
    session = fill(folder, candidate="method:uce")
    card = scored(session, [session.measure(cell) for cell in session.run.matrix.cells])
    assert card.complete
    assert finished.kept(session) is None
    assert finished.keep(session, card, to_json(card))
    return folder, card


@pytest.mark.heavy
def test_an_unchanged_run_has_its_scorecard(measured: tuple[Path, Scorecard]) -> None:
    folder, card = measured
    found = finished.kept(opened(folder))
    assert found is not None
    assert to_json(found) == to_json(card)


def test_where_reports_lie_changes_nothing(measured: tuple[Path, Scorecard]) -> None:
    assert finished.kept(opened(measured[0], report="elsewhere")) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"candidate": "method:esd"},
        {"attach": "released"},
        {"method": {"uce": {"erase_scale": 0.5}}},
        {"concepts": "hazard"},
        {"images_reference": 100},
        {"image_seed": 1},
        {"sampler": {"steps": 6}},
        {"sampler": {"batch": 12}},
        {"seeds": "1"},
        {"profile": {"lite": {"steps": 121}}},
        {"dataset_limit": 599},
        {"judge_threshold": 0.4},
        {"thresholds": {"drift": 9.0}},
        {"level": 0.9},
        {"protocol": "v1"},
        {"threads": 2},
        {"mode": "sequential"},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_decides_a_reading_or_a_score_is_another_run(
    measured: tuple[Path, Scorecard], change: dict[str, Any]
) -> None:
    assert finished.kept(opened(measured[0], **change)) is None


def test_other_prompts_under_the_same_file_name_are_another_run(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(
        "prompt,kind,concept\na hazard,harmful,hazard\na square,lookalike,hazard\na star,benign,\n"
    )
    own = {
        "prompts": str(path),
        "concepts": "hazard",
        "domains": "plain",
        "candidate": "method:uce",
    }
    session = fill(tmp_path, **own)
    card = scored(session, [session.measure(cell) for cell in session.run.matrix.cells])
    assert finished.keep(session, card, to_json(card)) == card.complete
    assert card.complete
    assert finished.kept(opened(tmp_path, **own)) is not None
    path.write_text(path.read_text().replace("a star", "a disc"))
    assert finished.kept(opened(tmp_path, **own)) is None


def test_other_code_is_another_run(
    measured: tuple[Path, Scorecard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "code_of", lambda *_: "edited")
    assert finished.kept(opened(measured[0])) is None


def test_a_run_that_lacks_a_cell_is_not_kept(tmp_path: Path) -> None:
    session = fill(tmp_path, candidate="method:uce")
    results = [session.measure(cell) for cell in session.run.matrix.cells[1:]]
    card = scored(session, results)
    assert not finished.keep(session, card, to_json(card))
    assert finished.kept(session) is None


@pytest.mark.heavy
def test_a_run_that_chooses_its_number_of_images_is_not_kept(tmp_path: Path) -> None:
    session = fill(tmp_path, looks=3, candidate="method:uce", mode="sequential")
    card = scored(session, [session.measure(cell) for cell in session.run.matrix.cells])
    assert card.complete
    assert not finished.keep(session, card, to_json(card))
    assert finished.kept(session) is None


def test_a_store_that_takes_nothing_keeps_nothing_and_stops_nobody(
    measured: tuple[Path, Scorecard], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spqr_checks.errors import UserError

    folder, card = measured
    session = opened(folder, image_seed=7)

    def full(*_: object, **__: object) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(session.run.store, "build", full)
    assert not finished.keep(session, card, to_json(card))


def test_every_artefact_that_a_run_reads_is_part_of_what_identifies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fill(tmp_path, candidate="method:uce")
    asked: set[str] = set()
    require = session.engine.require

    def recording(unit: Unit) -> Path:
        asked.add(entry_key(unit.kind, unit.recipe))
        return Path(require(unit))

    monkeypatch.setattr(session.engine, "require", recording)
    for cell in session.run.matrix.cells:
        session.measure(cell)

    def known() -> Iterator[Unit]:
        for cell in session.run.matrix.cells:
            yield from session.reads(cell, 1)

    assert asked
    assert asked <= {entry_key(unit.kind, unit.recipe) for unit in known()}
