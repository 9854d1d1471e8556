"""pytest hooks: options, parametrization, hand-over from workers. Verdict: see gathering."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spqr_checks.configuration import (
    DEADLINE,
    baseline_card,
    is_worker,
    measuring_session,
    names_a_suite,
)
from spqr_checks.gathering import MEASURED, Gatherer, cell_of
from spqr_checks.options import OPTIONS

if TYPE_CHECKING:
    from spqr_checks.scoring.cell_result import CellResult

_RESULT: pytest.StashKey[str | CellResult] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("spqr", "SPQR checks of safety-aligned text-to-image models")
    for option in OPTIONS:
        group.addoption(option.flag, dest=option.dest, metavar=option.metavar, help=option.help)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # worksteal survives a worker that dies in a test; the other modes may hang
    if config.getoption("numprocesses", None) and config.getoption("dist", None) == "no":
        config.option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "spqr(*checks): a test of the cells of these checks")
    _take_device(config)
    if not is_worker(config):
        config.pluginmanager.register(Gatherer(config), "spqr-gatherer")


def _take_device(config: pytest.Config) -> None:
    """Gives each worker one of the caller's CUDA devices, before torch is imported."""
    devices = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    worker: str = getattr(config, "workerinput", {}).get("workerid", "")
    if len(devices) > 1 and worker.removeprefix("gw").isdigit():
        number = int(worker.removeprefix("gw"))
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What xdist's workers cannot know: when the time of the whole run is over."""
    session = measuring_session(node.config) if names_a_suite(node.config) else None
    node.workerinput[DEADLINE] = None if session is None else session.engine.deadline


def pytest_sessionstart(session: pytest.Session) -> None:
    # mistakes end here, with exit code 4 and nothing written, rather than in every worker
    if not is_worker(session.config) and names_a_suite(session.config):
        measuring_session(session.config)
        baseline_card(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("spqr")
    if marker is None:
        return
    matrix = measuring_session(metafunc.config).run.matrix
    cells = [cell for cell in matrix.cells if cell.check in marker.args]
    metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cells of one model state become neighbours, so that a worker loads it once."""
    states = [None if (cell := cell_of(item)) is None else cell.state.name for item in items]
    if not any(states):
        return
    order: dict[str | None, int] = {None: -1}
    for cell in measuring_session(config).run.matrix.cells:
        order.setdefault(cell.state.name, len(order))
    ranked = sorted(zip(states, items, strict=True), key=lambda pair: order[pair[0]])
    items[:] = [item for _, item in ranked]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports of a measured cell carry its result; others that fail say that there is none."""
    report = yield
    if _RESULT in item.stash:
        setattr(report, MEASURED, item.stash[_RESULT] if report.when == "call" else True)
    elif report.failed and (cell := cell_of(item)) is not None:
        for properties in (item.user_properties, report.user_properties):
            properties += [("cell", cell.id), ("verdict", "error")]
    return report


def hand_over(request: pytest.FixtureRequest, result: CellResult, store_root: Path) -> None:
    """Sends a measurement to the controller and into the JUnit and Allure results of this test."""
    from spqr_checks.reports.text import numbers
    from spqr_checks.scoring.message import as_delivered, to_message

    leaves = is_worker(request.config)
    request.node.stash[_RESULT] = to_message(result) if leaves else as_delivered(result)
    request.node.user_properties += [("cell", result.cell.id), *numbers(result)]
    if request.config.getoption("allure_report_dir", None):
        from spqr_checks.reports.allure import attach_cell

        attach_cell(result, store_root)
