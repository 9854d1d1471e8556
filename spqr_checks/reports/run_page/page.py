"""A run as one HTML page that needs nothing but itself; its one script only sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES, CHECKS
from spqr_checks.reports import baseline as against
from spqr_checks.reports import plots, scenarios, selection, toml
from spqr_checks.reports.album import Album
from spqr_checks.reports.files import replace
from spqr_checks.reports.html import is_page, render, script
from spqr_checks.reports.markdown import described
from spqr_checks.reports.run_page import MARK
from spqr_checks.reports.run_page.changes import changes, control_names
from spqr_checks.reports.run_page.examples import examples
from spqr_checks.reports.run_page.heat import maps
from spqr_checks.reports.text import (
    VERDICTS,
    axis_row,
    cell_row,
    figure,
    limit,
    measured,
    protocol_rows,
    reason,
    score,
    span,
)
from spqr_checks.scoring import sensitivity
from spqr_checks.scoring.baseline.comparison import BaselineComparison
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

_EFFECTS = 5
_SHOWN = {
    True: "Images that are flagged, or not judged, are blurred; click one, or press the space bar "
    "on it, to see it.",
    False: "Images that are flagged, or not judged, are blurred, and not in this page as they are; "
    "--spqr-report-images sharp puts them in.",
}


@dataclass(frozen=True, slots=True)
class Around:
    """What differs from run to run, or is no part of the scorecard.

    Attributes:
        baseline: the run against its baseline, if it has one.
        environment: as `json_file.environment` gives it.
        timings: seconds by name.
    """

    baseline: BaselineComparison | None = None
    environment: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None


def write(card: Scorecard, album: Album | None, around: Around, path: Path) -> None:
    """Write the page. Raises UserError."""
    content = page(card, album, around).encode("utf-8", "backslashreplace")
    replace(path, content, partial(is_page, MARK))


def page(card: Scorecard, album: Album | None, around: Around) -> str:
    """The whole page.

    Args:
        album: where pictures come from; what it lacks is said on the page. None: no pictures.
    """
    found = changes(card)
    drifts = [one.drift for group in found.values() for one in group]
    return render(
        "run.html.j2",
        mark=MARK,
        script_hash=script("cells.js"),
        card=card,
        candidate=str(card.candidate.get("name", "unnamed")),
        plots=plots,
        gate=_gate(card, around.baseline),
        interval_name=selection.interval_name(card),
        missing=selection.missing(card),
        advice=_advice(card),
        axes=selection.axis_rows(card),
        chart=plots.radar(card.axes),
        scenarios=scenarios.table_rows(card),
        scenario_header=scenarios.HEADER,
        scenarios_said=scenarios.SAID,
        changes=found,
        control_names=control_names(),
        scale=plots.scale(drifts),
        heat=maps(card),
        examples=examples(card, album),
        has_album=album is not None,
        pictures_lead=_SHOWN[album is not None and album.sharp],
        controls=_controls(card),
        broken=[cell_row(r) for r in selection.control_failures(card)],
        remedies=selection.remedies(card),
        coverage=selection.coverage(card),
        left_out=selection.left_out(card),
        against=against,
        baseline=around.baseline,
        compared=[] if around.baseline is None else _compared(around.baseline),
        own=[[check.test, check.claim, *_figures(check.result)] for check in card.own],
        cells=selection.by_severity(card.cells),
        place=_place,
        limit=limit,
        measured=measured,
        reason=reason,
        axis_row=axis_row,
        remarks=selection.remarks(card),
        how=selection.how_decided(card),
        things=_things(card),
        protocols=protocol_rows(card.protocols),
        protocol_header=["protocol", "SPQR", *AXES],
        versions=_versions(around),
        settings=toml.shown(selection.to_repeat(card)),
    )


def _gate(card: Scorecard, baseline: BaselineComparison | None) -> tuple[str, str]:
    """Class of the badge and its words; what the exit code says."""
    word = selection.gate_word(card)
    if word == "PASSED" and baseline is not None and not baseline.passed:
        word = "FAILED"
    return "passed" if word == "PASSED" else "failed", word


def _advice(card: Scorecard) -> list[tuple[str, str]]:
    """What would change the number: what, and to what."""
    cells = sensitivity.of_cells(card)[:_EFFECTS]
    # an axis of one cell is that cell, which says more
    places = {result.cell.id: result.cell.place for result in card.cells}
    said = {(places[one.id], score(one.spqr)) for one in cells}
    lines = [
        (f"{one.id} {AXES[one.id].title} without fault", score(one.spqr))  # type: ignore[index]
        for one in sensitivity.of_axes(card)[:1]
        if (one.id, score(one.spqr)) not in said
    ]
    return lines + [(one.id, score(one.spqr)) for one in cells]


def _controls(card: Scorecard) -> list[list[str]]:
    """Kind of control, how many there are, and how many hold, fail or say nothing."""
    rows = []
    for name in (name for name, row in CHECKS.items() if row.control):
        verdicts = [r.verdict for r in card.cells if r.cell.check == name]
        if verdicts:
            held = verdicts.count("pass")
            row = [name.replace("_", " "), len(verdicts), held, len(verdicts) - held]
            rows.append([str(value) for value in row])
    return rows


def _figures(result: CellResult) -> list[str]:
    bounds = span(result.interval, result.unit)
    value = figure(result.value, result.unit)
    return [VERDICTS[result.verdict], value, bounds, str(result.n), reason(result)]


def _place(result: CellResult) -> str:
    """Where a cell counts: its axis, or that it is a control."""
    return "control" if result.cell.is_control else result.cell.axis


def _compared(comparison: BaselineComparison) -> list[list[str]]:
    return [
        [
            cell.id,
            against.WORDS[cell.outcome],
            figure(cell.before, cell.unit),
            figure(cell.after, cell.unit),
            against.step(cell.worsening, cell.unit),
            against.steps(cell.bounds, cell.unit),
            against.step(cell.margin, cell.unit),
            cell.change,
        ]
        for cell in against.changed(comparison)
    ]


def _things(card: Scorecard) -> list[tuple[str, str, str]]:
    things = [("candidate", card.candidate), ("base", card.base)]
    things += [("judge", judge) for judge in card.judges]
    return [(role, described(thing), digest(thing)) for role, thing in things]


def _versions(around: Around) -> Sequence[str]:
    lines = []
    if around.environment is not None:
        versions = around.environment.get("versions", {})
        known = [f"{name} {version}" for name, version in versions.items() if version]
        system = [f"Python {around.environment.get('python')}"]
        system.append(str(around.environment.get("platform")))
        lines.append(", ".join([*system, *known]))
    for name, seconds in (around.timings or {}).items():
        lines.append(f"{name}: {seconds}")
    return lines
