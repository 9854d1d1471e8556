"""Live progress of a run: one refreshed line on a terminal, a line now and then in a log."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from spqr_checks.reports.text import encodable, one_line, shorten
from spqr_checks.scoring.cell_result import Verdict

_PLAIN_EVERY = 15.0
_REFRESH_EVERY = 0.1
_CLEAR = "\r\x1b[K"


class Progress:
    """Says how many cells are done, what is being built and how long it will take.

    Events come from whoever runs the cells; nothing is printed but in answer to one. Call
    ``tick`` while waiting, so that the line keeps moving. Events may come from several threads.

    Args:
        cells_total: cells in this run.
        stream: where the lines go.
        clock: seconds, increasing.
        tty: whether the line may be refreshed in place; found out from the stream if None.
        width: columns of the terminal; asked of the system if None.
        every: seconds between two plain lines.
    """

    def __init__(
        self,
        cells_total: int,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        tty: bool | None = None,
        width: int | None = None,
        every: float = _PLAIN_EVERY,
    ) -> None:
        self._total = cells_total
        self._stream = stream
        self._clock = clock
        self._tty = _can_refresh(stream) if tty is None else tty
        self._width = width
        self._every = _REFRESH_EVERY if self._tty else every
        self._start = self._last_done = clock()
        self._last_line = self._start - self._every if self._tty else self._start
        self._done: dict[str, Verdict] = {}
        self._building: tuple[str, ...] = ()
        self._drawn = False
        self._lock = threading.RLock()

    def cell_done(self, cell_id: str, verdict: Verdict) -> None:
        """A cell has its verdict."""
        with self._lock:
            if cell_id not in self._done:
                self._last_done = self._clock()
            self._done[cell_id] = verdict
            self.tick(force=self._tty and len(self._done) >= self._total)

    def building(self, labels: Sequence[str]) -> None:
        """What is being built right now, most telling first; empty for nothing."""
        with self._lock:
            self._building = tuple(labels)
            self.tick()

    def tick(self, *, force: bool = False) -> None:
        """Print the line if it is time to (or in any case)."""
        with self._lock:
            now = self._clock()
            if not force and now - self._last_line < self._every:
                return
            self._last_line = now
            if self._tty:
                self._put(_CLEAR + self._fitted())
                self._drawn = True
            else:
                self._put(self.line() + "\n")

    def clear(self) -> None:
        """Take the refreshed line away, so that others may print; the next event brings it back."""
        with self._lock:
            if self._drawn:
                self._put(_CLEAR)
                self._drawn = False
                self._last_line = self._clock() - self._every

    def close(self) -> None:
        """The end: nothing is left on a terminal, a log gets its last line."""
        if self._tty:
            self.clear()
        elif self._done:
            self.tick(force=True)

    def eta(self) -> float | None:
        """Seconds to the end by the pace so far; None before the first cell is done.

        Between two cells the time counts down; once the next cell is overdue, it is taken to end
        right now, so that a stalled run never promises what its beginning promised.
        """
        remaining = self._total - len(self._done)
        if remaining <= 0:
            return 0.0
        if not self._done:
            return None
        now = self._clock()
        pace = (self._last_done - self._start) / len(self._done)
        idle = now - self._last_done
        if idle <= pace:
            return remaining * pace - idle
        return (remaining - 1) * (now - self._start) / (len(self._done) + 1)

    def line(self) -> str:
        """``[spqr] 31/60 cells · building: esd on base · 2:10 left``."""
        parts = [f"[spqr] {len(self._done)}/{self._total} cells"]
        verdicts = list(self._done.values())
        unmeasured = verdicts.count("not_measurable")
        for count, said in (
            (len(verdicts) - verdicts.count("pass") - unmeasured, "not passed"),
            (unmeasured, "not measurable"),
        ):
            if count:
                parts.append(f"{count} {said}")
        if self._building:
            parts.append("building: " + ", ".join(map(one_line, self._building)))
        eta = self.eta()
        if eta is not None and len(self._done) < self._total:
            parts.append(f"{duration(eta)} left" if eta >= 1 else "any moment now")
        return " · ".join(parts)

    def _fitted(self) -> str:
        """The line cut to the terminal: a line that wraps could not be taken back."""
        width = self._width or shutil.get_terminal_size().columns
        line = self.line()
        excess = len(line) - (width - 1)
        if excess <= 0 or not self._building:
            return shorten(line, width - 1)
        labels = ", ".join(map(one_line, self._building))
        room = len(labels) - excess
        if room < 4:
            return shorten(line, width - 1)
        return line.replace(labels, shorten(labels, room), 1)

    def _put(self, text: str) -> None:
        self._stream.write(encodable(text, getattr(self._stream, "encoding", None) or "utf-8"))
        self._stream.flush()


def duration(seconds: float) -> str:
    """``2:10``, ``1:02:10``; rounded up, so that it never says less than it means."""
    whole = -int(-seconds // 1)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _can_refresh(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb" and "CI" not in os.environ
