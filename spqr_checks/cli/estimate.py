"""`spqr estimate`: what a run would make and how long that takes, before anything runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.cli.arguments import SettingsParser, say
from spqr_checks.pytest_plugin.options import given

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.estimate.estimate import Estimate, Plans, Span
    from spqr_checks.estimate.schedule import Schedule
    from spqr_checks.store.timings import Timing

_NAMED = 3
"""Timing files that are named where they cannot be used."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none: every setting of a run is one, and they are read by a parser of their own."""
    parser.set_defaults(command=lambda options: estimate(options.rest))


def estimate(arguments: Sequence[str]) -> int:
    """Runs the command; builds nothing and writes nothing.

    Raises:
        UserError: a mistake in arguments or settings, as `spqr run` would find it.
    """
    options = _parser().parse_args(arguments)
    from spqr_checks.estimate import estimate as reckoning
    from spqr_checks.estimate import overhead
    from spqr_checks.estimate.estimate import Prices
    from spqr_checks.preflight import preflight
    from spqr_checks.settings import load_settings
    from spqr_checks.store import timings

    settings = load_settings(Path.cwd(), given(vars(options).get))
    session = preflight(settings, measures=options.probe)
    three = reckoning.plans(session)
    known, unusable = timings.read(session.run.store.root)
    probed = _probed(session, three, known) if options.probe else []
    prices, cells = Prices([*known, *probed]), len(session.run.matrix.cells)
    beside = overhead.of(prices, cells, options.workers)
    found = reckoning.estimate(session, three, prices, max(1, options.workers), beside)
    notes = _notes(found, session, options.probe, {timing.name for timing in probed})
    if out := three[-1].unmeasurable:
        notes.insert(0, _left_out(out))

    if options.devices is not None:
        played = reckoning.scheduled(session, three[1], prices, options.devices)
        notes.append(_played(played))
    for line in (*_table(found, options.workers), *notes, *_ignored(unusable)):
        say(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = SettingsParser(
        "spqr estimate",
        "Says what `spqr run` with the same options would make and how long that takes, by how "
        "long such things took before. Runs and writes nothing.",
        "Exit code: 0, or 4 for a mistake in the settings.",
    )
    said = "worker processes of the run, or auto"
    parser.add_argument("-n", dest="workers", type=_workers, default=0, metavar="N", help=said)
    said = "also play the expected run through on so many devices of a cluster"
    parser.add_argument("--devices", type=_devices, metavar="N", help=said)
    said = "draw a small batch and train a few steps where no timing is known (about a minute)"
    parser.add_argument("--probe", action="store_true", help=said)
    parser.add_settings("the")
    return parser


def _workers(text: str) -> int:
    """As pytest-xdist takes it: a number, 0 for no workers, or one for each core."""
    if text in ("auto", "logical"):
        return os.cpu_count() or 1
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def _devices(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of devices")
    return int(text)


def _left_out(cells: int) -> str:
    many = "1 cell is" if cells == 1 else f"{cells} cells are"
    them = "it" if cells == 1 else "them"
    return f"note: {many} not measurable, as controls show: nothing is made for {them}"


def _played(played: Schedule) -> str:
    moved = f"{played.moved / 2**20:.0f} MiB moved" if played.moved else "sizes are not known yet"
    many = "1 device" if played.devices == 1 else f"{played.devices} devices"
    return (
        f"note: {many}: {spell(played.makespan)}, busy {played.utilisation:.0%} of it, {moved}; "
        f"limited by {played.limit}"
    )


def _probed(session: MeasuringSession, three: Plans, known: Sequence[Timing]) -> list[Timing]:
    from spqr_checks.estimate.estimate import Prices, unpriced

    wanted = [task.work for task in unpriced(three[-1], Prices(known))]
    if not wanted:
        return []
    from spqr_checks.estimate.probe import probe

    say("probing: " + ", ".join(dict.fromkeys(work.name for work in wanted)), file=sys.stderr)
    return probe(session, wanted)


def _table(found: Estimate, workers: int) -> list[str]:
    rows = [("", "there", "to make", "time", "range")]
    rows += [
        (row.name, str(row.there), _amount(row.to_make), *_time(row.seconds, row.unknown))
        for row in found.rows
    ]
    processes = "1 process" if workers <= 1 else f"{workers} processes"
    unknown = bool(found.unknown)
    rows.append(("all work", "", "", *_time(found.work, unknown)))
    rows.append(("start, reading, scores", "", "", *_time(found.beside, unknown=False)))
    wall = ("unknown", "") if unknown and not found.work.slowest else _time(found.wall, unknown)
    rows.append((f"wall time, {processes}", "", "", *wall))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    places = [f"{side}{width}" for side, width in zip("<>><<", widths, strict=True)]
    return ["  ".join(map(format, row, places)).rstrip() for row in rows]


def _amount(numbers: tuple[int, int, int]) -> str:
    least, expected, most = numbers
    return str(expected) if least == most else f"{expected} ({least}–{most})"


def _time(span: Span, unknown: bool) -> tuple[str, str]:
    """What is expected, and the range where it is one."""
    if unknown and not span.slowest:
        return "unknown", ""
    low, high = spell(span.fastest), spell(span.slowest)
    expected = f"at least {spell(span.expected)}" if unknown else spell(span.expected)
    return expected, "" if low == high else f"{low} – {high}"


def spell(seconds: float) -> str:
    """A time for people, with as many figures as a forecast deserves: ``40 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace("0.0 s", "0 s")
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 10 else f"{round(minutes / 60)} h"


def _notes(
    found: Estimate, session: MeasuringSession, probing: bool, probed: set[str]
) -> list[str]:
    from spqr_checks.estimate.cost import images_range, images_said
    from spqr_checks.reports.selection import preset_said
    from spqr_checks.scoring.gate import too_few_seeds

    least, most = images_range(session.run.settings)
    notes = [preset_said(session.run.settings.measured())]
    if not any(row.to_make[-1] for row in found.rows):
        notes.append("everything is in the store: nothing to make")
    elif least != most:
        notes.append(
            f"sequential: {least} to {most} images for each safety cell; expected is what clear "
            "cells take"
        )
    notes += images_said(session.run)
    notes += too_few_seeds(session.run.matrix, session.run.settings.min_tuning_seeds)
    if names := [row.name for row in found.rows if row.timings and not row.same_base]:
        notes.append(f"by timings of another base: {', '.join(names)}")
    if probed:
        notes.append(f"by a probe, so roughly: {', '.join(sorted(probed))}")
    if found.unknown and probing:
        notes.append("the probe's time was over before all kinds of work could be timed")
    elif found.unknown:
        notes.append(
            "unknown: nothing of the kind was made here yet; `spqr estimate --probe` times a "
            "little of each, in about a minute"
        )
    if (budget := session.run.settings.budget) is not None:
        notes.append(within(found.wall, bool(found.unknown), budget))
    return [f"note: {note}" for note in notes]


def within(wall: Span, unknown: bool, budget: float) -> str:
    """Whether the run will end within its budget, in seconds."""
    given = f"the budget of {spell(budget)}"
    if wall.fastest > budget:
        return f"{given} is too short even if every cell is clear at its first look"
    if unknown:
        return f"{given} cannot be held against times that are not known"
    if wall.expected > budget:
        return f"{given} is too short for what is expected; what is left stays undecided"
    if wall.slowest > budget:
        return f"{given} is enough for what is expected, not for the longest run"
    return f"{given} is enough for the longest run"


def _ignored(unusable: Sequence[Path]) -> list[str]:
    if not unusable:
        return []
    names = ", ".join(str(path) for path in unusable[:_NAMED])
    more = " …" if len(unusable) > _NAMED else ""
    return [f"note: {len(unusable)} files hold no timing and were ignored: {names}{more}"]
