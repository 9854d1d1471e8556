"""One run of the suites in a process of its own, and what becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from spqr_checks.errors import UserError
from spqr_checks.reports import SCORECARD, SUMMARY
from spqr_checks.reports.json_file import read_scorecard, write_scorecard
from spqr_checks.reports.markdown import write_summary
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.scorecard import Scorecard

INTERRUPTED = 2
_TAIL = 40


class StoppedError(Exception):
    """Somebody wants it to stop; what is finished lies in the store."""


def refuse_foreign(folder: Path) -> None:
    """Raises UserError if something that is no scorecard lies where one will be written."""
    path = folder / SCORECARD
    if os.path.lexists(path):
        try:
            read_scorecard(path)
        except UserError:
            raise UserError(
                f"{path} is already there and is no scorecard.\n"
                "Move it away or choose another folder with --out."
            ) from None


def restore(card: Scorecard, folder: Path) -> None:
    """Writes the reports of a run that was finished before, for people to find. Raises UserError.

    What it ran on and how long it took is left as it is.
    """
    write_scorecard(card, folder / SCORECARD)
    write_summary(card, folder / SUMMARY)


def run(name: str, arguments: Sequence[str], folder: Path) -> Entry:
    """Runs `spqr run` for one candidate and takes its scorecard.

    A scorecard of an earlier run is removed first: whatever happens, it must not be taken for this
    run's. Everything that it rests on stays in the store.

    Args:
        name: of the candidate.
        arguments: for `spqr run`; they name the candidate and the folder of reports.
        folder: where the run will write its scorecard.

    Returns:
        The candidate with its scorecard, or with the reason why there is none.

    Raises:
        StoppedError: the run was interrupted, or this process was while it went on.
        UserError: an old scorecard cannot be removed.
    """
    path = folder / SCORECARD
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}") from None
    code, last_words = _call([sys.executable, "-P", "-m", "spqr_checks.cli", "run", *arguments])
    if code == INTERRUPTED:
        raise StoppedError
    if not path.is_file():
        return Entry(name, None, _why(code, last_words))
    return Entry(name, read_scorecard(path))


def _why(code: int, last_words: Sequence[str]) -> str:
    ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    # pytest marks a user's mistake like this; other last words are the best that there is
    marked = [n for n, line in enumerate(last_words) if line.startswith(("ERROR: ", "spqr: "))]
    words = " ".join(last_words[marked[-1] :] if marked else last_words[-1:])
    said = f": {words.removeprefix('ERROR: ').removeprefix('spqr: ')}" if words else ""
    return f"its run {ending} without a scorecard{said}"


def _call(command: Sequence[str]) -> tuple[int, list[str]]:
    """The exit code and the last lines of standard error, which is shown all the same.

    The child gets a session of its own: Ctrl-C on a terminal reaches every process of a group, and
    a second SIGINT, passed on by us, would cut its tidying up short. So it gets just ours.
    """
    # the candidates' summaries would bury the one that is wanted
    environment = {k: v for k, v in os.environ.items() if k != "GITHUB_STEP_SUMMARY"}
    last: deque[str] = deque(maxlen=_TAIL)
    with _Passing() as passing:
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=environment,
            start_new_session=True,
        )
        passing.to(process)
        assert process.stderr is not None
        reader = threading.Thread(target=_copy, args=(process.stderr, last), daemon=True)
        reader.start()
        code = process.wait()
        reader.join(timeout=5)  # a grandchild that is left over may hold the pipe open
    if passing.interrupted:
        raise StoppedError
    return code, [line for line in last if line]


def _copy(stream: IO[str], last: deque[str]) -> None:
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        last.append(line.strip())


class _Passing:
    """While it is entered, SIGINT and SIGTERM go to the child as SIGINT, and nowhere else."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.interrupted = False

    def __enter__(self) -> _Passing:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._pass_on)
        return self

    def to(self, process: subprocess.Popen[str]) -> None:
        """Names the child; it is told at once of what came before it was there."""
        self._process = process
        if self.interrupted:
            process.send_signal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
