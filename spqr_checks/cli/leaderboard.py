"""`spqr leaderboard`: arguments, the runs one after the other, the reports, the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from spqr_checks.errors import UserError
from spqr_checks.leaderboard import children
from spqr_checks.leaderboard.candidates import Candidate, finished, parse_candidates, refuse_repeats
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.scoring.leaderboard.comparable import refuse_differences
from spqr_checks.scoring.leaderboard.rank import Entry, rank

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.scoring.scorecard import Scorecard

ALL_RANKED, INTERRUPTED, INCOMPLETE = 0, children.INTERRUPTED, 3
OUT = Path("spqr-leaderboard")
_OURS = {
    "candidate": "name the candidates in --candidates",
    "report": "choose the folder of all reports with --out",
}
"""Settings that this command gives to each run itself, and what to say instead."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"leaderboard: {message}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none: every setting of a run is one, and they are read by a parser of their own."""
    parser.set_defaults(command=lambda options: leaderboard(options.rest))


def leaderboard(arguments: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        0: every candidate is ranked; 3: some have no number; 2: interrupted.

    Raises:
        UserError: a mistake in the arguments or settings, before anything is run; or scorecards
            that cannot be ranked together.
    """
    options = _parser().parse_args(arguments)
    given = _given(options)
    candidates = parse_candidates(options.candidates) if options.candidates else []
    there = finished(options.scorecards)
    if not candidates and not there:
        raise UserError("leaderboard: nothing to rank; give --candidates, --scorecards or both")
    if not candidates and set(given) - {"store"}:
        field = min(set(given) - {"store"})
        raise UserError(
            f"leaderboard: the setting {field!r} decides nothing about finished scorecards; "
            "only --spqr-store goes with --scorecards alone"
        )
    refuse_repeats([*(Entry(c.name, None) for c in candidates), *there])
    refuse_differences({entry.name: entry.card for entry in there if entry.card is not None})
    sessions = _sessions(candidates, given, options.out)
    try:
        entries = [_run(c, sessions[c], given, options, candidates) for c in candidates] + there
    except (children.StoppedError, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return _report(entries, options.out, _store(given))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="spqr leaderboard",
        description="Runs the suites for each candidate, on one store, and ranks them by SPQR. "
        "The same command continues an interrupted one.",
        epilog="Exit code: 0 all ranked, 2 interrupted, 3 some have no number, 4 usage error.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--candidates",
        metavar="LIST",
        help="separated by commas: base, method:NAME or NAME, a directory or Hub id",
    )
    parser.add_argument(
        "--scorecards",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="finished scorecards, ranked as they are",
    )
    parser.add_argument("-n", dest="workers", metavar="N", help="worker processes of each run")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"default {OUT}")
    settings = parser.add_argument_group("settings of every run, see `spqr run --help`")
    for option in OPTIONS:
        text = _OURS.get(option.field, option.help).replace("%", "%%")
        flags = [option.flag] if option.field in _OURS else [option.flag, option.short]
        settings.add_argument(*flags, dest=option.dest, metavar=option.metavar, help=text)
    return parser


def _given(options: argparse.Namespace) -> dict[str, str]:
    """The settings on the command line, by field."""
    given = {
        option.field: value
        for option in OPTIONS
        if (value := getattr(options, option.dest)) is not None
    }
    for field, remedy in _OURS.items():
        if field in given:
            raise UserError(f"leaderboard: --spqr-{field} is set for each run: {remedy}")
    if given.get("mode", "fixed") != "fixed":
        raise UserError(
            "leaderboard: candidates are compared on the same images; leave out --spqr-mode"
        )
    return given


def _sessions(
    candidates: Sequence[Candidate], given: Mapping[str, str], out: Path
) -> dict[Candidate, MeasuringSession]:
    """What measures each candidate.

    Raises:
        UserError: a mistake in any of them, found before the first is run, as that may take days.
    """
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.runtime.run import Run
    from spqr_checks.settings import load_settings

    sessions = {}
    for candidate in candidates:
        children.refuse_foreign(out / candidate.slug)
        settings = load_settings(Path.cwd(), _settings_of(candidate, given, out))
        try:
            sessions[candidate] = MeasuringSession(Run.from_settings(settings))
            sessions[candidate].validate()
        except UserError as error:
            raise UserError(f"candidate {candidate.name}: {error}") from None
    return sessions


def _settings_of(candidate: Candidate, given: Mapping[str, str], out: Path) -> dict[str, Any]:
    # drawn until decided, candidates would be compared on different images
    fixed = {"mode": "fixed", "candidate": candidate.name, "report": str(out / candidate.slug)}
    return {**given, **fixed}


def _run(
    candidate: Candidate,
    session: MeasuringSession,
    given: Mapping[str, str],
    options: argparse.Namespace,
    candidates: Sequence[Candidate],
) -> Entry:
    number = 1 + candidates.index(candidate)
    title = f"[{number}/{len(candidates)}] {candidate.name}"
    folder = options.out / candidate.slug
    if (card := _kept(session)) is not None:
        print(f"{title}: nothing has changed since it was measured", flush=True)
        children.restore(card, folder)
        return Entry(candidate.name, card)
    print(title, flush=True)
    flags = {option.field: option.flag for option in OPTIONS}
    chosen = _settings_of(candidate, given, options.out)
    arguments = [f"{flags[field]}={value}" for field, value in chosen.items()]
    if options.workers is not None:
        arguments = ["-n", options.workers, *arguments]
    return children.run(candidate.name, arguments, folder)


def _kept(session: MeasuringSession) -> Scorecard | None:
    from spqr_checks.checks.finished import kept

    # a comparison with a baseline is written by the run
    return None if session.run.settings.baseline else kept(session)


def _store(given: Mapping[str, str]) -> Path:
    """Where the images of finished scorecards are looked for, and those of runs lie."""
    from spqr_checks.settings import load_settings

    return Path(load_settings(Path.cwd(), given, measures=False).store)


def _report(entries: Sequence[Entry], out: Path, store: Path) -> int:
    from rich.console import Console

    from spqr_checks.reports.leaderboard import PAGE, write_all
    from spqr_checks.reports.leaderboard.terminal import show

    refuse_repeats(entries)
    board = rank(entries)
    cards = {entry.name: entry.card for entry in entries if entry.card is not None}
    write_all(board, cards, out, store)
    show(board, Console(), out / PAGE)
    return INCOMPLETE if board.unranked else ALL_RANKED
