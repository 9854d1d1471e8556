"""The controller's side: gathers measurements, keeps progress, scores, sets the exit status."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.cells import FAULT, MEASURED, OWN, tests_that_measure, told
from spqr_checks.pytest_plugin.configuration import (
    baseline_card,
    measuring_session,
    names_a_suite,
    started,
)

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.matrix import Matrix
    from spqr_checks.reports.progress import Progress
    from spqr_checks.scoring.baseline.comparison import BaselineComparison
    from spqr_checks.scoring.cell_result import CellResult
    from spqr_checks.scoring.request import OwnCheck
    from spqr_checks.scoring.scorecard import Scorecard

INCOMPLETE = 3
_POLL_SECONDS = 0.5


class Gatherer:
    """Registered as a plugin in the controller only (or where there are no workers)."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._session: MeasuringSession | None = None
        self._tests: dict[str, str | None] = {}
        self._own: list[OwnCheck] = []
        self._own_errors: dict[str, str] = {}
        self._results: dict[str, CellResult] = {}
        self._errors: dict[str, str] = {}
        self._scorecard: Scorecard | None = None
        self._against: BaselineComparison | None = None
        self._progress: Progress | None = None
        self._fault: Exception | None = None
        self._stopped = False
        self._warned: Sequence[str] = ()
        self._warnings: dict[str, None] = {}
        self._started = time.monotonic()
        self._first: float | None = None
        self._only_cells = True
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    # ---- which run this is ---------------------------------------------------------------

    @cached_property
    def told_in(self) -> Path:
        """Where workers say which tests measure."""
        return Path(tempfile.mkdtemp(prefix="spqr-"))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._learn(tests_that_measure(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        self._learn(told(self.told_in, node.gateway.id))

    def _learn(self, tests: dict[str, str | None]) -> None:
        """Tests that measure: node id → cell id, or None for a user's own test."""
        self._tests |= tests
        if tests:
            self._begin()

    def _begin(self) -> None:
        if self._session is not None or self._config.getoption("collectonly"):
            return
        from spqr_checks.reports.progress import Progress

        self._session = measuring_session(self._config)
        baseline_card(self._config)  # mistakes in it end here at the latest
        writer = self._config.get_terminal_writer()
        self._progress = Progress(self._selected, writer._file)
        self._ticker = threading.Thread(target=self._tick, name="spqr-progress", daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        assert self._progress is not None
        assert self._session is not None
        while not self._stop.wait(_POLL_SECONDS):
            held = self._session.run.store.leases_held()
            self._progress.building(sorted(str(lease["label"]) for lease in held))

    def pytest_runtest_logstart(self) -> None:
        self._first = self._first or time.time()

    # ---- results -------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._take_own(report)
        self._only_cells &= self._tests.get(report.nodeid) is not None
        if self._session is None:
            return
        measured: str | CellResult | None = getattr(report, MEASURED, None)
        if report.when == "call" and measured is not None:
            from spqr_checks.scoring.serialize import from_message

            result = from_message(measured) if isinstance(measured, str) else measured
            self._results[result.cell.id] = result
            if self._progress is not None:
                self._progress.cell_done(result.cell.id, result.verdict)
        elif report.failed and measured is None and report.nodeid in self._tests:
            cell_id = self._tests[report.nodeid]
            if cell_id is not None:
                self._errors[cell_id] = getattr(report, FAULT, _last_line(report.longreprtext))

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        # those of libraries say nothing about the model, and `spqr run` shows none of pytest's
        if warning_message.category.__module__.startswith("spqr_checks."):
            self._warnings[str(warning_message.message)] = None

    def _take_own(self, report: pytest.TestReport) -> None:
        """Claims of a user's own test; one whose worker died has left none behind."""
        given: tuple[list[str], dict[str, str]] | None = getattr(report, OWN, None)
        if given is None:
            if report.failed and self._tests.get(report.nodeid, "") is None:
                self._own_errors[report.nodeid] = _last_line(report.longreprtext)
        elif report.when == "teardown":
            from spqr_checks.scoring.serialize import own_from_message

            claims, errors = given
            if claims or errors:  # a fixture asked for by name is not known at collection
                self._begin()
            self._own += [own_from_message(claim) for claim in claims]
            self._own_errors |= {f"{report.nodeid}: {k}": why for k, why in errors.items()}

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
    ) -> tuple[str, str, str] | None:
        # a measured cell shows in the progress line, not as one more letter
        if not hasattr(report, MEASURED) or report.when != "call" or config.get_verbosity() > 0:
            return None
        # the run is over: this is its short summary, of lines as pytest's
        word = report.outcome.upper() if self._stop.is_set() else ""
        return report.outcome, "", word

    # ---- the end -------------------------------------------------------------------------

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._progress is not None:
            self._progress.close()
        if "told_in" in vars(self):
            shutil.rmtree(self.told_in, ignore_errors=True)
        self._stopped = self._stopped_by_failures(session)
        if exitstatus == pytest.ExitCode.INTERRUPTED and self._stopped:
            session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
        counted = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        try:
            if self._score() and self._scorecard is not None and counted:
                session.exitstatus = self._exit_status(self._scorecard, int(exitstatus))
        except Exception as error:  # what was measured must not be lost to what comes after it
            self._fault = error
            session.exitstatus = INCOMPLETE if counted else exitstatus

    def _stopped_by_failures(self, session: pytest.Session) -> bool:
        """Whether -x or --maxfail ended the run: with workers pytest calls that an interruption."""
        workers = self._config.pluginmanager.get_plugin("dsession")
        why = getattr(workers, "shouldstop", "") or session.shouldfail
        return str(why).startswith("stopping after ")

    def _score(self) -> bool:
        """Scores and reports what was measured; False where that is nothing."""
        if self._session is None or not (self._matrix.cells or self._own or self._own_errors):
            return False
        from spqr_checks.scoring.request import Rules, ScoreRequest
        from spqr_checks.scoring.scorecard import score
        from spqr_checks.scoring.serialize import from_json, to_json

        settings, description = self._session.run.settings, self._session.describe()
        request = ScoreRequest(
            matrix=self._matrix,
            results=list(self._results.values()),
            errors=self._left() | self._errors,
            **description,
            settings=settings.measured(),
            protocol=settings.protocol,
            min_score=settings.min_score,
            min_coverage=settings.min_coverage,
            rules=Rules(
                settings.level,
                settings.multiplicity,
                settings.inconclusive,
                settings.min_tuning_seeds,
                settings.assert_attacks,
            ),
            own=self._own,
            own_errors=self._own_errors,
        )
        text = to_json(score(request))
        # what its file rounds, no report says otherwise
        self._scorecard = from_json(text)
        try:
            self._against = self._compared(self._scorecard)
        finally:  # the scorecard is worth keeping without the comparison too
            self._write(self._scorecard, text, self._session)
        return True

    def _left(self) -> dict[str, str]:
        """Cells that were left out on purpose, and why they have no result."""
        from spqr_checks.scoring.completeness import NOT_SELECTED, STOPPED

        assert self._session is not None
        left = [cell.id for cell in self._matrix.cells if cell.id not in self._results]
        selected = set(self._tests.values())
        reasons = {cell_id: NOT_SELECTED for cell_id in left if cell_id not in selected}
        share = self._session.share
        if share is not None:
            reasons = dict.fromkeys(left, f"left to another shard than {share.said}") | reasons
        elif self._stopped:
            reasons = dict.fromkeys(left, STOPPED) | reasons
        return reasons

    @property
    def _selected(self) -> int:
        """How many cells are measured by a test of this run."""
        return sum(cell_id is not None for cell_id in self._tests.values())

    @property
    def _matrix(self) -> Matrix:
        """The run's cells; none where only users' own checks were measured."""
        assert self._session is not None
        matrix = self._session.run.matrix
        only_own = all(cell_id is None for cell_id in self._tests.values())
        return replace(matrix, cells=()) if only_own else matrix

    def _compared(self, scorecard: Scorecard) -> BaselineComparison | None:
        baseline = baseline_card(self._config)
        if baseline is None or self._session is None:
            return None
        from spqr_checks.scoring.baseline.comparison import compare

        settings = self._session.run.settings
        margins = settings.margins.model_dump()
        return compare(baseline, scorecard, margins, settings.baseline_undecided)

    def _exit_status(self, scorecard: Scorecard, tests: int) -> int:
        if not scorecard.complete:
            return INCOMPLETE
        closed = self._against is not None and not self._against.passed
        failed = closed or not scorecard.gate.passed
        return int(pytest.ExitCode.TESTS_FAILED) if failed else tests

    def _write(self, scorecard: Scorecard, text: str, session: MeasuringSession) -> None:
        from spqr_checks.checks.finished import keep
        from spqr_checks.reports import BASELINE, write_all
        from spqr_checks.reports.json_file import remove_baseline

        folder = Path(session.run.settings.report)
        allure = self._config.getoption("allure_report_dir", None)
        timings = {"seconds": round(time.monotonic() - self._started, 1)}
        run = session.run
        self._warned = write_all(
            scorecard,
            folder,
            Path(allure) if allure else None,
            timings,
            self._against,
            store=run.store.root,
            images=run.settings.report_images,
            text=text,
        )
        if self._against is None:
            remove_baseline(folder / BASELINE)
        with suppress(UserError):
            session.note_weights()
        if not scorecard.own:  # the store keeps what the suites alone come to
            keep(session, scorecard, text)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        session = terminalreporter._session
        try:
            self._tell(terminalreporter)
            self._keep_time()
        except Exception as error:
            self._fault = error
        if self._fault is not None:
            self._tell_fault(terminalreporter, self._fault)
            if session is not None and session.exitstatus in (0, 1):
                session.exitstatus = INCOMPLETE
        nothing = getattr(session, "exitstatus", None) == pytest.ExitCode.NO_TESTS_COLLECTED
        if nothing and names_a_suite(self._config):
            said = "no cell was selected, so nothing was measured; look at -k, -m and --deselect"
            terminalreporter.write_line(f"spqr: {said}")

    def _keep_time(self) -> None:
        """What the run took beside what it made, for the next one's estimate."""
        if self._session is None or self._scorecard is None or self._first is None:
            return
        from spqr_checks.estimate import overhead
        from spqr_checks.store import timings

        root, begun = self._session.run.store.root, started(self._config)
        read_all = self._scorecard.complete and self._only_cells
        only_read = read_all and not timings.any_since(root, begun)
        workers = self._config.getoption("numprocesses", None) or 0
        overhead.keep(
            root,
            cells=len(self._matrix.cells),
            workers=workers,
            start=self._first - begun,
            reading=time.time() - self._first if only_read else None,
        )

    def _tell_fault(self, terminalreporter: pytest.TerminalReporter, fault: Exception) -> None:
        import traceback

        from spqr_checks.reports.text import lines

        said = "the run was measured, but not wholly scored and reported"
        known = isinstance(fault, UserError)
        if not known:  # a fault of the program, which whoever mends it wants to see whole
            terminalreporter.write_line(lines("".join(traceback.format_exception(fault))))
        name = "" if known else f"{type(fault).__name__}: "
        terminalreporter.write_line(lines(f"spqr: {said}: {name}{fault}"), red=True)
        terminalreporter.write_line("Everything measured is in the store; run again to go on.")

    def _tell(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._scorecard is None or self._session is None:
            return
        from spqr_checks import known_good
        from spqr_checks.reports.terminal import summary_text
        from spqr_checks.reports.text import one_line

        writer = self._config.get_terminal_writer()
        report = Path(self._session.run.settings.report)
        width, colour = writer.fullwidth, writer.hasmarkup
        text = summary_text(self._scorecard, report, width, colour, self._against)
        terminalreporter.ensure_newline()
        writer.write(text, flush=True)
        selected, every = self._selected, len(self._matrix.cells)
        if (share := self._session.share) is not None and not self._scorecard.complete:
            cells = f"{len(self._results)} of {every} cells"
            writer.line(f"shard {share.said}: partial: {cells}; join the stores with spqr merge")
        elif 0 < selected < every:
            writer.line(f"partial: {selected} of {every} cells; only all of them make a number")
        for remark in self._session.run.remarks:
            writer.line(f"prompts: {one_line(remark)}")
        unseen = self._warnings if self._config.getoption("disable_warnings") else ()
        for warning in (*unseen, *self._warned):
            writer.line(f"warning: {one_line(warning)}")
        if differing := known_good.remark(known_good.differing()):
            writer.line(f"versions: {differing}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
