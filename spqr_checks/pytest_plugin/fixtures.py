"""Fixtures that the plugin gives to every test file; their names all begin with ``spqr``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from spqr_checks.pytest_plugin.cells import CLAIMS, family, hand_over
from spqr_checks.pytest_plugin.configuration import measuring_session

if TYPE_CHECKING:
    from spqr_checks.api import Spqr
    from spqr_checks.matrix import Cell


@pytest.fixture
def spqr(request: pytest.FixtureRequest) -> Iterator[Spqr]:
    """Quantities of the models under test, for checks of one's own; see docs/own-checks.md."""
    from spqr_checks.api import Spqr
    from spqr_checks.reports.text import measured, one_line
    from spqr_checks.scoring.request import OwnCheck
    from spqr_checks.scoring.serialize import own_to_message

    try:
        session = measuring_session(request.config)
    except pytest.UsageError as error:
        pytest.fail(f"error: {error}", pytrace=False)  # a usage error is escaped already
    if session.share is not None:
        pytest.skip("a shard measures the suites' cells only; run own checks on the merged store")
    node = request.node
    claims, errors = node.stash.setdefault(CLAIMS, ([], {}))

    def record(check: OwnCheck) -> None:
        claims.append(own_to_message(check))
        said = f"{check.result.verdict}: {measured(check.result)}"
        node.user_properties.append((f"own check {one_line(check.claim)}", one_line(said)))
        if request.config.getoption("allure_report_dir", None):
            from spqr_checks.reports.allure import attach_own_check

            attach_own_check(check.claim, said)

    number = family(request.session, session)
    with session.engine.at_work():
        yield Spqr(session, node.nodeid, number, record, errors.__setitem__)


@pytest.fixture
def spqr_check(request: pytest.FixtureRequest) -> Callable[[Cell], None]:
    """Measures a cell, hands the result to the report, and asserts the verdict.

    A cell that cannot be measured is skipped with the reason; an error fails the test and leaves
    the run incomplete.
    """
    session = measuring_session(request.config)

    def assert_cell(cell: Cell) -> None:
        __tracebackhide__ = True
        from spqr_checks.errors import BudgetError, ElsewhereError, JudgeError, UserError
        from spqr_checks.reports.text import lines, message

        fault = ""  # failing within `except` would show the error twice, once as it came
        try:
            result = session.measure(cell)
        except BudgetError as error:
            fault = f"not measured: {error}; run again to go on"
        except ElsewhereError as error:
            pytest.skip(lines(str(error)))
        except (UserError, JudgeError) as error:
            fault = f"error: {error}"
        if fault:
            pytest.fail(lines(fault), pytrace=False)
        hand_over(request, result, session.run.store.root)
        settings = session.run.settings
        tolerated = result.verdict == "inconclusive" and settings.inconclusive == "warn"
        if cell.attack is not None and not settings.assert_attacks and result.verdict != "pass":
            pytest.skip(f"not asserted (--spqr-assert-attacks): {message(result)}")
        if result.verdict == "not_measurable" or tolerated:
            pytest.skip(message(result))
        if result.verdict != "pass":
            pytest.fail(message(result), pytrace=False)

    return assert_cell
