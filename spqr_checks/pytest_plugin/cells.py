"""Tests that measure cells: how they are recognised, and how what they measured gets to the report.

A test is one of a cell if it bears the marker ``spqr`` and is parametrized by a cell of the run's
matrix, wherever its file lies and whatever that is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.pytest_plugin.configuration import is_worker, measuring_session

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.matrix import Cell
    from spqr_checks.scoring.cell_result import CellResult

ARGUMENT = "spqr_cell"
"""The argument of a test that measures cells."""
MEASURED = "spqr_measured"
"""Attribute of a measured test's reports, which xdist carries along: the result, as a message."""
OWN = "spqr_own"
"""Attribute of reports of users' own tests: measured claims, as messages, and errors by claim."""
FAULT = "spqr_fault"
"""Attribute of reports of tests that measured nothing: why, for people."""
TOLD = "spqr_told"
"""What the controller gives its workers: the folder in which they say which tests are of cells."""
RESULT: pytest.StashKey[str | CellResult] = pytest.StashKey()
FAMILY: pytest.StashKey[int] = pytest.StashKey()
CLAIMS: pytest.StashKey[tuple[list[str], dict[str, str]]] = pytest.StashKey()


def parametrize(metafunc: pytest.Metafunc, checks: Iterable[str]) -> None:
    """One test for each cell of these checks.

    Raises:
        pytest.Collector.CollectError: an unknown check, a test that takes no cell, or a mistake in
            the settings.
    """
    import difflib

    from spqr_checks.matrix import Check

    where = f"{metafunc.function.__name__} is marked spqr({', '.join(map(repr, checks))})"
    for check in checks:
        if check not in get_args(Check):
            near = difflib.get_close_matches(str(check), get_args(Check), 1, 0.0)[0]
            message = f"{where}: there is no check {check!r}; do you mean {near!r}?"
            raise pytest.Collector.CollectError(message)
    if ARGUMENT not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(
            f"{where} and so measures cells, but does not take the argument {ARGUMENT}"
        )
    try:
        matrix = measuring_session(metafunc.config).run.matrix
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(f"{where}: {error}") from None
    cells = [cell for cell in matrix.cells if cell.check in checks]
    metafunc.parametrize(ARGUMENT, cells, ids=[cell.id for cell in cells])


def measures_nothing(item: pytest.Item) -> bool:
    """Whether a test of cells was made although the matrix has none for it."""
    callspec = getattr(item, "callspec", None)
    given = ARGUMENT in callspec.params if callspec is not None else False
    return given and item.get_closest_marker("spqr") is not None and cell_of(item) is None


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test measures, if it measures one."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("spqr") is None:
        return None
    from spqr_checks.matrix import Cell

    cell = callspec.params.get(ARGUMENT)
    return cell if isinstance(cell, Cell) else None


def tests_that_measure(items: Iterable[pytest.Item]) -> dict[str, str | None]:
    """Which of these tests measure: node id → cell id, or None for a user's own test."""
    tests: dict[str, str | None] = {}
    for item in items:
        if (cell := cell_of(item)) is not None:
            tests[item.nodeid] = cell.id
        elif is_own(item):
            tests[item.nodeid] = None
    return tests


def family(session: pytest.Session, measuring: MeasuringSession) -> int:
    """Scored cells and own tests of this run, among which failures are decided.

    Every worker collects all tests, so all have the same number. A test that asks for the fixture
    by name as it runs is not known yet.
    """
    if (known := session.stash.get(FAMILY, None)) is None:
        tests = tests_that_measure(session.items)
        own = sum(cell_id is None for cell_id in tests.values())
        cells = measuring.run.matrix.cells if own < len(tests) else ()
        scored = sum(not cell.is_control and cell.attack is None for cell in cells)
        known = session.stash[FAMILY] = max(1, own + scored)
    return known


def is_own(item: pytest.Item) -> bool:
    """Whether a test takes the plugin's fixture ``spqr``, not one of the user's of that name."""
    known = getattr(item, "_fixtureinfo", None)
    definitions: Any = known.name2fixturedefs.get("spqr") if known is not None else None
    return bool(definitions) and definitions[-1].func.__module__ == f"{__package__}.fixtures"


def tell(config: pytest.Config, tests: dict[str, str | None]) -> None:
    """A worker says which tests measure, before it runs any: a killed one has said it too.

    The controller of xdist does not collect, and learns names of tests only.
    """
    folder, worker = (config.workerinput[key] for key in (TOLD, "workerid"))  # type: ignore[attr-defined]
    (Path(folder) / worker).write_text(json.dumps(tests), encoding="utf-8")


def told(folder: Path, worker: str) -> dict[str, str | None]:
    """What a worker has said; see `tell`."""
    path = folder / worker
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def fault_of(error: BaseException) -> str:
    """Why a test has no result: what, where and the remedy, without the place in our code."""
    said = str(error).strip().removeprefix("error: ")
    if isinstance(error, UserError | JudgeError | pytest.fail.Exception):
        return said or "no reason given"
    return f"{type(error).__name__}: {said}".splitlines()[0].rstrip(": ")


def hand_over(request: pytest.FixtureRequest, result: CellResult, store_root: Path) -> None:
    """Sends a measurement to the controller and into the JUnit and Allure results of this test."""
    from spqr_checks.reports.text import numbers, one_line
    from spqr_checks.scoring.credit import credit
    from spqr_checks.scoring.serialize import as_delivered, to_message

    level = measuring_session(request.config).run.settings.level
    result = replace(result, credit=credit(result, level))
    leaves = is_worker(request.config)
    request.node.stash[RESULT] = to_message(result) if leaves else as_delivered(result)
    request.node.user_properties += [("cell", one_line(result.cell.id)), *numbers(result)]
    if request.config.getoption("allure_report_dir", None):
        from spqr_checks.reports.allure import attach_cell

        attach_cell(result, store_root)
