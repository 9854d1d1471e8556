"""`spqr leaderboard`: arguments, the runs one after the other, the reports, the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.cli.arguments import SettingsParser, say
from spqr_checks.errors import UserError, refuse_all
from spqr_checks.leaderboard import children
from spqr_checks.leaderboard.candidates import Candidate, finished, parse_candidates, refuse_repeats
from spqr_checks.pytest_plugin.options import OPTIONS, given
from spqr_checks.scoring.comparable import refuse_differences
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession

ALL_RANKED, INTERRUPTED, INCOMPLETE = 0, children.INTERRUPTED, 3
OUT = Path("spqr-leaderboard")
_OURS = {
    "candidate": "name the candidates in --candidates",
    "report": "choose the folder of all reports with --out",
}
"""Settings that this command gives to each run itself, and what to say instead."""
_PLACES = {"candidate": "", "mode": "", "report": "--out"}
"""Where users said what this command gives; a candidate is named before its problems anyway."""


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
    settings = _settings(options)
    candidates = parse_candidates(options.candidates) if options.candidates else []
    there = finished(options.scorecards or [])
    if not candidates and not there:
        raise UserError("leaderboard: nothing to rank; give --candidates, --scorecards or both")
    if not candidates and set(settings) - {"store"}:
        field = min(set(settings) - {"store"})
        raise UserError(
            f"leaderboard: the setting {field!r} decides nothing about finished scorecards; "
            "only --spqr-store goes with --scorecards alone"
        )
    refuse_repeats([*(Entry(c.name, None) for c in candidates), *there])
    refuse_differences({entry.name: entry.card for entry in there if entry.card is not None})
    from spqr_checks.reports.files import refuse_unwritable

    refuse_unwritable(options.out, "Choose another folder with --out.")
    sessions = _sessions(candidates, settings, options.out)
    try:
        entries = [_run(c, sessions[c], settings, options, candidates) for c in candidates] + there
    except (children.StoppedError, KeyboardInterrupt):
        say("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    try:
        return _report(entries, options.out, settings)
    except Exception as error:
        if not candidates:  # nothing was drawn, and files were given that do not do
            raise
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        said = f"the candidates were measured, but not ranked: {kind}{error}"
        say(f"spqr: {said}\nTheir scorecards are in {options.out}.", sys.stderr)
        return INCOMPLETE


def _parser() -> argparse.ArgumentParser:
    parser = SettingsParser(
        "spqr leaderboard",
        "Runs the suites for each candidate, on one store, and ranks them by SPQR. The same "
        "command continues an interrupted one.",
        "Exit code: 0 all ranked, 2 interrupted, 3 some have no number, 4 usage error.",
    )
    said = "separated by commas: base, method:NAME or NAME, a folder or Hub id; all: every method"
    parser.add_argument("--candidates", metavar="LIST", help=said)
    said = "finished scorecards, ranked as they are"
    parser.add_argument("--scorecards", nargs="+", type=Path, metavar="FILE", help=said)
    parser.add_argument("-n", dest="workers", metavar="N", help="worker processes of each run")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"default {OUT}")
    parser.add_settings("every", _OURS)
    return parser


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """The settings on the command line, by field."""
    settings = given(vars(options).get)
    for field, remedy in _OURS.items():
        if field in settings:
            raise UserError(f"leaderboard: --spqr-{field} is set for each run: {remedy}")
    if settings.get("mode", "fixed") != "fixed":
        raise UserError(
            "leaderboard: candidates are compared on the same images; leave out --spqr-mode"
        )
    return settings


def _sessions(
    candidates: Sequence[Candidate], common: Mapping[str, str], out: Path
) -> dict[Candidate, MeasuringSession]:
    """What measures each candidate.

    Raises:
        UserError: the mistakes in all of them, found before the first is run, as that may take
            days; what is wrong with several is said once.
    """
    from spqr_checks.preflight import preflight
    from spqr_checks.settings import load_settings

    sessions: dict[Candidate, MeasuringSession] = {}
    named: dict[str, str] = {}
    for candidate in candidates:
        try:
            children.refuse_foreign(out / candidate.slug)
            chosen = _settings_of(candidate, common, out)
            settings = load_settings(Path.cwd(), chosen, places=_PLACES)
            sessions[candidate] = preflight(settings)
        except UserError as error:
            for problem in error.problems:
                named.setdefault(problem, candidate.name)
    refuse_all(f"candidate {name}: {problem}" for problem, name in named.items())
    return sessions


def _settings_of(candidate: Candidate, common: Mapping[str, str], out: Path) -> dict[str, Any]:
    # drawn until decided, candidates would be compared on different images
    fixed = {"mode": "fixed", "candidate": candidate.name, "report": str(out / candidate.slug)}
    return {**common, **fixed}


def _run(
    candidate: Candidate,
    session: MeasuringSession,
    common: Mapping[str, str],
    options: argparse.Namespace,
    candidates: Sequence[Candidate],
) -> Entry:
    from spqr_checks.checks.finished import kept

    number = 1 + candidates.index(candidate)
    title = f"[{number}/{len(candidates)}] {candidate.name}"
    folder = options.out / candidate.slug
    # a comparison with a baseline is written by the run
    card = None if session.run.settings.baseline else kept(session)
    if card is not None:
        say(f"{title}: nothing has changed since it was measured")
        children.restore(card, folder)
        return Entry(candidate.name, card)
    say(title)
    flags = {option.field: option.flag for option in OPTIONS}
    chosen = _settings_of(candidate, common, options.out)
    arguments = [f"{flags[field]}={value}" for field, value in chosen.items()]
    workers = [] if options.workers is None else ["-n", options.workers]
    return children.run(candidate.name, [*workers, *arguments], folder)


def _report(entries: Sequence[Entry], out: Path, common: Mapping[str, str]) -> int:
    from rich.console import Console

    from spqr_checks.reports.leaderboard import PAGE, write_all
    from spqr_checks.reports.terminal import show_leaderboard
    from spqr_checks.settings import load_settings

    # where the images of finished scorecards are looked for, and those of runs lie
    store = Path(load_settings(Path.cwd(), common, measures=False).store)

    refuse_repeats(entries)
    board = rank(entries)
    cards = {entry.name: entry.card for entry in entries if entry.card is not None}
    for warning in write_all(board, cards, out, store):
        say(f"warning: {warning}", sys.stderr)
    show_leaderboard(board, Console(), out / PAGE)
    return INCOMPLETE if board.unranked else ALL_RANKED
