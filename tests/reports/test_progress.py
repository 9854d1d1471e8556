"""Progress: a line that refreshes, a line now and then, and how long it will take."""

from __future__ import annotations

import io
import re
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.reports.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A progress with a clock that the test turns."""

    def __init__(self, total: int, **options: Any) -> None:
        self.clock, self.out = Clock(), io.StringIO()
        self.progress = Progress(total, self.out, clock=self.clock, **options)
        self._cells = 0

    def done(self, after: float, verdict: Any = "pass", count: int = 1) -> None:
        for _ in range(count):
            self.clock.now += after
            self._cells += 1
            self.progress.cell_done(f"cell {self._cells}", verdict)

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


# ---- lines -------------------------------------------------------------------------------


def test_a_line_says_what_is_done_what_is_built_and_how_long_it_takes() -> None:
    run = Run(60, tty=False)
    run.done(after=4.5, count=31)
    run.progress.building(["esd on base", "lite.stripes.0"])
    assert run.progress.line() == (
        "[spqr] 31/60 cells · building: esd on base, lite.stripes.0 · 2:11 left"
    )


def test_cells_that_did_not_pass_and_that_say_nothing_are_counted_apart() -> None:
    run = Run(4, tty=False)
    run.done(after=1, verdict="fail")
    run.done(after=1, verdict="inconclusive")
    run.done(after=1, verdict="not_measurable")
    assert "3/4 cells · 2 not passed · 1 not measurable" in run.progress.line()


def test_nothing_is_promised_before_the_first_cell() -> None:
    run = Run(10, tty=False)
    run.clock.now += 100
    assert run.progress.eta() is None
    assert run.progress.line() == "[spqr] 0/10 cells"


def test_a_log_gets_a_line_every_15_seconds_and_one_at_the_end() -> None:
    run = Run(60, tty=False)
    run.done(after=1, count=60)
    assert [line.split(" cells")[0] for line in run.lines] == [
        "[spqr] 15/60",
        "[spqr] 30/60",
        "[spqr] 45/60",
        "[spqr] 60/60",
    ]
    run.progress.close()
    assert run.lines[-1] == "[spqr] 60/60 cells"
    assert "\x1b" not in run.out.getvalue()
    assert "\r" not in run.out.getvalue()


def test_a_terminal_gets_one_line_that_is_taken_back_at_the_end() -> None:
    run = Run(3, tty=True, width=80)
    run.done(after=1, count=3)
    run.progress.close()
    written = run.out.getvalue()
    assert "\n" not in written
    assert written.endswith("\r\x1b[K")
    assert "2/3 cells" in written
    assert "3/3 cells" in written


def test_a_terminal_line_is_not_refreshed_faster_than_anyone_reads() -> None:
    run = Run(10_000, tty=True, width=80)
    run.done(after=0.001, count=1000)
    assert run.out.getvalue().count("\r") <= 12


@settings(deadline=None)
@given(labels=st.lists(st.text(max_size=30), max_size=6), width=st.integers(20, 120))
def test_a_terminal_line_never_wraps_nor_breaks(labels: list[str], width: int) -> None:
    run = Run(60, tty=True, width=width)
    run.done(after=61.0)
    run.progress.building(labels)
    run.progress.tick(force=True)
    for line in run.out.getvalue().split("\r\x1b[K"):
        assert len(line) < width
        assert line.isprintable()


def test_what_is_left_stays_on_a_narrow_terminal() -> None:
    run = Run(60, tty=True, width=60)
    run.done(after=10)
    run.progress.building(["standard fine-tuning on a data set with a long name, seed 3"])
    run.progress.tick(force=True)
    last = run.out.getvalue().split("\r\x1b[K")[-1]
    assert re.search(r"building: standard .*… · 9:50 left$", last)


def test_others_may_print_after_the_line_was_cleared_and_it_comes_back() -> None:
    run = Run(5, tty=True, width=80)
    run.done(after=1)
    run.progress.clear()
    assert run.out.getvalue().endswith("\r\x1b[K")
    before = run.out.getvalue()
    run.progress.clear()
    assert run.out.getvalue() == before
    run.progress.building(["x"])
    assert "building: x" in run.out.getvalue()[len(before) :]


def test_a_stream_that_knows_only_ascii_is_no_reason_to_fail() -> None:
    raw = io.BytesIO()
    progress = Progress(2, io.TextIOWrapper(raw, encoding="ascii"), tty=False)
    progress.building(["Ångström مثلث"])
    progress.tick(force=True)
    assert raw.getvalue() == (
        b"[spqr] 0/2 cells - building: \\xc5ngstr\\xf6m \\u0645\\u062b\\u0644\\u062b\n"
    )


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_dumb_terminals_and_ci_logs_get_plain_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    refreshed, plain = Terminal(), Terminal()
    Progress(1, refreshed, width=80).tick(force=True)
    monkeypatch.setenv(name, value)
    Progress(1, plain, width=80).tick(force=True)
    assert "\r" in refreshed.getvalue()
    assert plain.getvalue() == "[spqr] 0/1 cells\n"


def test_events_may_come_from_several_threads() -> None:
    run = Run(4000, tty=True, width=80)

    def work(name: int) -> None:
        for i in range(1000):
            run.progress.cell_done(f"{name}.{i}", "pass")
            run.progress.building([f"{name}"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.progress.line() == "[spqr] 4000/4000 cells · building: " + run.progress.line()[-1]


# ---- how long it will take ---------------------------------------------------------------


def test_the_end_is_judged_by_the_pace_so_far() -> None:
    run = Run(10, tty=False)
    run.done(after=20, count=4)
    assert run.progress.eta() == pytest.approx(120)


def test_between_two_cells_the_time_counts_down() -> None:
    run = Run(10, tty=False)
    run.done(after=20, count=4)
    run.clock.now += 5
    assert run.progress.eta() == pytest.approx(115)


def test_a_stalled_run_does_not_promise_what_its_beginning_promised() -> None:
    run = Run(10, tty=False)
    run.done(after=1, count=5)
    promised = run.progress.eta()
    run.clock.now += 600
    late = run.progress.eta()
    assert promised == pytest.approx(5)
    assert late is not None
    assert late > 300


def test_a_cell_that_is_told_twice_counts_once() -> None:
    run = Run(3, tty=False)
    for _ in range(2):
        run.clock.now += 10
        run.progress.cell_done("same", "pass")
    assert run.progress.line().startswith("[spqr] 1/3")


def test_at_the_end_nothing_is_left() -> None:
    run = Run(2, tty=False)
    run.done(after=5, count=2)
    assert run.progress.eta() == 0
    assert "left" not in run.progress.line()


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0.01, 1e4), min_size=1, max_size=20),
    idle=st.lists(st.floats(0.001, 1e3), min_size=1, max_size=10),
)
def test_the_estimate_is_never_negative_and_never_jumps_between_events(
    gaps: list[float], idle: list[float]
) -> None:
    run = Run(len(gaps) + 5, tty=False)
    for gap in gaps:
        run.done(after=gap)
    before = run.progress.eta()
    for step in idle:
        run.clock.now += step
        after = run.progress.eta()
        assert before is not None
        assert after is not None
        assert after >= 0
        assert before - after <= step * 1.001 + 1e-6
        assert after - before <= 5 * step + 1e-6
        before = after


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (0.2, "0:01"), (130, "2:10"), (3730, "1:02:10")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text
