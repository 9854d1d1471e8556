"""pytest hooks: options, parametrization, hand-over from workers. The verdict: see `collector`.

This module is loaded in every pytest run of its environment, so whatever is heavy is imported where
a cell is measured.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.cells import (
    CLAIMS,
    FAULT,
    MEASURED,
    OWN,
    RESULT,
    TOLD,
    cell_of,
    fault_of,
    is_own,
    measures_nothing,
    parametrize,
    tell,
    tests_that_measure,
)
from spqr_checks.pytest_plugin.collector import Gatherer
from spqr_checks.pytest_plugin.configuration import (
    FAILED,
    LOOKED,
    MADE,
    STARTED,
    baseline_card,
    ended,
    has_session,
    is_one_of_several,
    is_worker,
    make_remotely,
    measuring_session,
    names_a_suite,
    refuse_suites_elsewhere,
    select,
    started,
)
from spqr_checks.pytest_plugin.fixtures import spqr, spqr_check
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.pytest_plugin.start import (
    COLD,
    TOLD_IN,
    owners_to_load,
    while_others_start,
    yield_to_owners,
)

if TYPE_CHECKING:
    from spqr_checks.matrix import Cell

__all__ = ["spqr", "spqr_check"]

_GATHERER = "spqr-gatherer"
_EVERYWHERE = ("all", "all", "all")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("spqr", "SPQR checks of safety-aligned text-to-image models")
    for option in OPTIONS:
        group.addoption(option.flag, dest=option.dest, metavar=option.metavar, help=option.help)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # worksteal survives a worker that dies in a test; the other modes may hang
    if config.getoption("numprocesses", None) and config.getoption("dist", None) == "no":
        config.option.dist = "worksteal"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    refuse_suites_elsewhere(config)
    _refuse_allure_folder(config)
    config.addinivalue_line("markers", "spqr(*checks): a test of the cells of these checks")
    started(config)
    if is_worker(config):
        yield_to_owners(config)
    else:
        config.pluginmanager.register(Gatherer(config), _GATHERER)


def _refuse_allure_folder(config: pytest.Config) -> None:
    """In the words of a usage error what allure-pytest would end with a traceback over."""
    name = config.getoption("allure_report_dir", None)
    if not name:
        return
    from spqr_checks.reports.files import refuse_unwritable

    try:
        refuse_unwritable(Path(name), "Choose another folder with --alluredir.")
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What xdist's workers cannot know, and where they say what the controller cannot know."""
    node.workerinput[STARTED] = started(node.config)
    node.workerinput[LOOKED] = has_session(node.config)
    node.workerinput[COLD] = owners_to_load(node.config, node.workerinput["workercount"])
    gatherer: Gatherer = node.config.pluginmanager.get_plugin(_GATHERER)
    node.workerinput[FAILED] = node.config.stash.get(MADE, {})
    node.config.stash[TOLD_IN] = gatherer.told_in
    node.workerinput[TOLD] = str(gatherer.told_in)


def pytest_sessionstart(session: pytest.Session) -> None:
    # mistakes end here, with exit code 4 and nothing written, rather than in every worker
    if not is_worker(session.config) and names_a_suite(session.config):
        measuring_session(session.config)
        baseline_card(session.config)
        if not session.config.getoption("collectonly"):
            make_remotely(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    while_others_start(session.config)


def pytest_report_header(config: pytest.Config) -> str | None:
    if is_worker(config) or not names_a_suite(config):
        return None
    from spqr_checks.reports.selection import preset_said

    return f"spqr: {preset_said(measuring_session(config).run.settings.measured())}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("spqr")
    if marker is not None:
        parametrize(metafunc, marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """pytest makes a skipped test of a check that has no cell; the run has no such test.

    It is left out before anybody counts it.
    """
    report = yield
    report.result = [
        node
        for node in report.result
        if not (isinstance(node, pytest.Item) and measures_nothing(node))
    ]
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Neighbours are what one process should measure: cells of one state, or of one prompt group.

    A process alone loads a state once. Of several each takes a stretch of the list, devices have
    owners that see to the states, and what cells of a group share is then read by one process.
    """
    cells = [cell_of(item) for item in items]
    if not any(cells):
        return
    shared = is_one_of_several(config)
    order: dict[Hashable, int] = {None: -1}
    for cell in measuring_session(config).run.matrix.cells:
        order.setdefault(_near(cell, shared), len(order))
    # what reads the images of all groups comes last
    order[_EVERYWHERE] = len(order)
    ranks = [order[cell and _near(cell, shared)] for cell in cells]
    ranked = sorted(zip(ranks, items, strict=True), key=lambda pair: pair[0])
    items[:] = [item for _, item in ranked]


def _near(cell: Cell, shared: bool) -> Hashable:
    """What cells have in common that one process should measure."""
    return (cell.concept, cell.language, cell.domain) if shared else cell.state


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    # before xdist's own, which has the controller look for what is told
    if not (tests := tests_that_measure(session.items)):
        return
    if is_worker(session.config):
        tell(session.config, tests)
    select(session.config, {*filter(None, tests.values())})
    # libraries and tests stay to the end; looking through them for garbage took a tenth of a run
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    ended(config)
    if "spqr_checks.pytest_plugin.escaping" in sys.modules:
        from spqr_checks.pytest_plugin.escaping import release_allure

        release_allure()


@pytest.hookimpl(wrapper=True, trylast=True)  # before whoever else reads the report
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports of a measured cell carry its result; others that fail say that there is none."""
    report = yield
    if is_own(item) or cell_of(item) is not None:
        from spqr_checks.pytest_plugin.escaping import escape_allure, escape_report

        escape_report(report)
        if item.config.getoption("allure_report_dir", None):
            escape_allure()
    if CLAIMS in item.stash or is_own(item):
        setattr(report, OWN, item.stash.get(CLAIMS, ([], {})))
    if RESULT in item.stash:
        setattr(report, MEASURED, item.stash[RESULT] if report.when == "call" else True)
    elif report.failed and (cell := cell_of(item)) is not None:
        from spqr_checks.reports.text import one_line

        if call.excinfo is not None:
            setattr(report, FAULT, fault_of(call.excinfo.value))
        for properties in (item.user_properties, report.user_properties):
            properties += [("cell", one_line(cell.id)), ("verdict", "error")]
    return report
