"""What of a scorecard is shown, and in which order; the same in every report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from spqr_checks.matrix import AXES
from spqr_checks.reports.text import NOTHING, plural, reason, score, span
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.completeness import MEASURED, by_cause
from spqr_checks.scoring.scorecard import LINES, Scorecard
from spqr_checks.scoring.uncertainty import seed_spread
from spqr_checks.statistics.intervals import clopper_pearson
from spqr_checks.statistics.sample_size import needed

_FEW_PROMPTS = 40
_NAMED = 3
_LEVEL = 0.95
"""Of a scorecard that no run of this program has written."""
_SEVERITY: tuple[Verdict, ...] = ("error", "fail", "inconclusive", "not_measurable", "pass")
_ONE_SIDED = "one-sided (two-sided intervals may cross the limit of a cell that passed)"
_CORRECTIONS = {
    "holm": "failures by Holm's method over all scored cells",
    "benjamini-hochberg": "failures by false discovery rate (Benjamini-Hochberg)",
    "none": "each cell by itself",
}


def axis_rows(card: Scorecard) -> list[tuple[str, AxisSummary]]:
    """The four axes, then the lines beside them, each with a heading."""
    rows = [(f"{letter} {axis.title}", card.axes[letter]) for letter, axis in AXES.items()]
    attacked = (None, None) if card.attacked is None else card.attacked.lines
    beside = zip(LINES, (card.after_tuning, *attacked, card.adapted), strict=True)
    always = LINES[0]
    return rows + [(n, line) for n, line in beside if line and (line.cells or n == always)]


def cells_total(card: Scorecard) -> int:
    """Cells of the matrix, measured or not."""
    return len({r.cell.id for r in card.cells} | {m.id for m in card.missing})


def failing(card: Scorecard) -> list[CellResult]:
    """Scored cells that did not pass: errors, failures, open ones, unmeasurable ones."""
    return by_severity(r for r in card.cells if not r.cell.is_control and r.verdict != "pass")


def worst(card: Scorecard, count: int) -> list[CellResult]:
    """The scored cells that speak most against the candidate; passing ones after all others."""
    measured = {"fail", "inconclusive", "pass"}
    scored = (r for r in card.cells if not r.cell.is_control and r.verdict in measured)
    return by_severity(scored)[:count]


def control_failures(card: Scorecard) -> list[CellResult]:
    """Controls that did not hold: why cells are not measurable or numbers not to be trusted."""
    return by_severity(r for r in card.cells if r.cell.is_control and r.verdict != "pass")


def remedies(card: Scorecard) -> list[str]:
    """What to change where controls do not hold, one line for each kind of control."""
    found = [r for r in control_failures(card) if r.verdict == "not_measurable"]
    rows = {result.cell.check: result.cell.row for result in found}.values()
    return [f"{row.name.replace('_', ' ')}: {row.remedy}" for row in rows]


def headline(card: Scorecard) -> str:
    """``SPQR 0.873 (anchored-2; raw 0.910)  gate PASSED``, or what is missing instead."""
    if not card.complete:
        count = plural(cells_total(card), "cell")
        return f"SPQR {NOTHING}  INCOMPLETE: {len(card.missing)} of {count} missing"
    verdict = gate_word(card)
    if not card.cells:
        return f"SPQR {NOTHING}  {plural(len(card.own), 'own check')} only; gate {verdict}"
    interval = "" if card.spqr_interval is None else f", interval {span(card.spqr_interval)}"
    number = f"{score(card.spqr)} ({card.protocol}{interval}; raw {score(card.spqr_raw)})"
    return f"SPQR {number}  gate {verdict}"


def gate_word(card: Scorecard) -> str:
    """``PASSED``, ``FAILED`` or ``INCOMPLETE``."""
    if not card.complete:
        return "INCOMPLETE"
    return "PASSED" if card.gate.passed else "FAILED"


def interval_name(card: Scorecard) -> str:
    """``95 % interval``: what the intervals of axes are called, by the run's level."""
    return f"{100 * level(card):g} % interval"


def level(card: Scorecard) -> float:
    """Confidence of the run's intervals."""
    return float(card.settings["level"]) if "mode" in card.settings else _LEVEL


def how_decided(card: Scorecard) -> list[str]:
    """How cells were decided, and between which fine-tuning seeds drifts vary; one line each."""
    settings = card.settings
    if "mode" not in settings:  # a scorecard that no run of this program has written
        return []
    images = f"{settings['images']} images a safety cell"
    if settings["mode"] == "sequential":
        images = f"{settings['images']} to {settings['max_images']} images a safety cell, as needed"
    error = f"{100 * (1 - settings['level']):.2g} %"
    correction = _CORRECTIONS[settings["multiplicity"]]
    lines = [f"{images}; error of a verdict {error}, {_ONE_SIDED}; {correction}"]
    if "preset" in settings:
        lines.insert(0, preset_said(settings))
    anytime = settings["mode"] == "sequential"
    most = settings["max_images"] if anytime else settings["images"]
    undecided = {
        r.threshold
        for r in failing(card)
        if r.verdict == "inconclusive" and r.unit == "rate" and r.cell.row.direction == "at_most"
    }
    lines += [
        needed(threshold, settings["level"], settings["images"], most, anytime)
        for threshold in sorted(undecided)
    ]
    measured = (r for r in card.cells if _of_tunings(r) and r.verdict in MEASURED)
    drifts = [r for r in measured if r.cell.state.tuning is not None]
    for name, (seeds, spread) in seed_spread(drifts).items():
        if seeds > 1:
            lines.append(
                f"drift after {name}: {seeds} fine-tuning seeds, "
                f"standard deviation {spread:.1f} points between them"
            )
    return [*lines, *_about(card), *_how_far(card)]


def preset_said(settings: Mapping[str, Any]) -> str:
    """The preset that a run's settings began with, and the rates that they came to."""
    before, after = (100 * settings["thresholds"][name] for name in ("unsafe", "unsafe_tuned"))
    allowed = f"unsafe at most {before:g} %, after fine-tuning {after:g} %"
    return f"preset {settings['preset']}: {allowed}"


def _about(card: Scorecard) -> list[str]:
    """What verdicts are about, and whether there are enough prompts for that."""
    if card.settings.get("about") != "prompts-like-these":
        return ["verdicts are about these prompts"] if "about" in card.settings else []
    line = "verdicts are about prompts like these: images of one prompt count as a cluster"
    counts = [int(r.details["prompts"]) for r in card.cells if "prompts" in r.details]
    few = [count for count in counts if count < _FEW_PROMPTS]
    if few:
        line += (
            f"; {len(few)} of {plural(len(counts), 'cell')} rest on fewer than {_FEW_PROMPTS} "
            f"prompts ({min(few)} at least), which say little about others"
        )
    return [line]


def _of_tunings(result: CellResult) -> bool:
    return AXES[result.cell.axis].of_tunings and not result.cell.is_control


def _how_far(card: Scorecard) -> list[str]:
    """What the distance behind quality was taken of, as its bias depends on these numbers."""
    lines = []
    for result in (r for r in card.cells if AXES[r.cell.axis].in_cohort):
        of, dimensions = (result.details.get(key) for key in ("reference_images", "dimensions"))
        if of is None or dimensions is None:
            continue
        distance, features = (str(card.settings.get(key)) for key in ("distance", "features"))
        few = min(result.n, int(of)) <= int(dimensions)
        note = "; fewer images than dimensions, which biases it: compare at these numbers only"
        lines.append(
            f"quality: {distance} of {plural(result.n, 'image')} of the candidate (and as many of "
            f"the base) to {of} reference images, {dimensions} dimensions by "
            f"{features.partition('=')[0]}{note * (distance == 'fid' and few)}"
        )
    return lines


def remarks(card: Scorecard) -> list[str]:
    """What a reader should know of the candidate besides the number; one line each."""
    notes = card.candidate.get("notes", [])
    lines = [f"note: {note}" for note in notes] if isinstance(notes, list) else []
    if card.attacked is not None:
        gated = "asserted by the gate" if card.attacked.asserted else "reported, not asserted"
        lines.append(f"attacks: {', '.join(card.attacked.attacks)}; no part of the number, {gated}")
    blockers = ["the candidate's own safety checker"] * (
        card.candidate.get("safety_checker") is True
    )
    guards = card.settings.get("guard") or ()
    blockers += [f"guard {name}" for name in guards] if isinstance(guards, list | tuple) else []
    if blockers:
        every = [r for r in card.cells if r.cell.row.each_group and not r.cell.is_control]
        rows = [result for result in every if result.cell.attack is None]
        harmful, benign = (
            _blocked(r for r in rows if (r.cell.row.prompts == "harmful") == asked)
            for asked in (True, False)
        )
        lines.append(
            f"note: {' and '.join(blockers)} blocked {harmful} images of harmful prompts and "
            f"{benign} of benign ones"
        )
        lines += _bypasses(every)
    return lines


def _bypasses(results: Iterable[CellResult]) -> Iterator[str]:
    """How often each attack gets past what blocks, and how often it succeeds against all."""
    by_attack: dict[str, list[CellResult]] = {}
    for result in results:
        if result.cell.attack is not None and isinstance(result.details.get("flagged"), int):
            by_attack.setdefault(result.cell.attack, []).append(result)
    for attack, own in by_attack.items():
        n = sum(result.n for result in own)
        blocked = sum(int(result.details.get("blocked", 0)) for result in own)
        flagged = sum(int(result.details["flagged"]) for result in own)
        passed, unsafe = (
            f"{k} of {n} ({span(clopper_pearson(k, n), 'rate')})" for k in (n - blocked, flagged)
        )
        yield f"note: {attack} got {passed} images past it, and {unsafe} are unsafe"


def _blocked(results: Iterable[CellResult]) -> str:
    known = [(r.details.get("blocked", 0), r.n) for r in results]
    blocked = sum(count for count, _ in known if isinstance(count, int))
    return f"{blocked} of {sum(n for _, n in known)}"


def by_severity(results: Iterable[CellResult]) -> list[CellResult]:
    """What speaks most against the candidate first."""

    def key(result: CellResult) -> tuple[int, float, str]:
        score = 1.0 if result.score is None else result.score
        return _SEVERITY.index(result.verdict), score, result.cell.id

    return sorted(results, key=key)


def coverage(card: Scorecard) -> list[str]:
    """``coverage: S over 47 of 60 cells, R over 2 of 3 cells``; nothing where all is covered."""
    parts = [
        f"{name if name in LINES else name[0]} over {axis.measured} of {plural(axis.cells, 'cell')}"
        for name, axis in axis_rows(card)
        if axis.not_measurable
    ]
    return [f"coverage: {', '.join(parts)}"] if parts else []


def causes(found: Iterable[tuple[str, str]]) -> list[str]:
    """Of pairs of id and reason a line each; a reason that several share is said once."""
    lines = []
    for why, ids in by_cause(found).items():
        if len(ids) == 1:
            lines.append(f"{ids[0]}: {why}")
        else:
            shown = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
            lines.append(f"{plural(len(ids), 'cell')}: {why} ({shown})")
    return lines


def missing(card: Scorecard) -> list[str]:
    """What is missing and why, a line for each cause."""
    return causes((m.id, m.reason) for m in card.missing)


def left_out(card: Scorecard) -> list[str]:
    """The scored cells that say nothing, with their reasons; they count for no axis."""
    return causes(
        (result.cell.id, reason(result))
        for result in sorted(card.cells, key=lambda result: result.cell.id)
        if result.verdict == "not_measurable" and not result.cell.is_control
    )


def to_repeat(card: Scorecard) -> dict[str, Any]:
    """The settings by which the run is repeated, without tables of what it does not use.

    Options of methods other than the candidate's, of attacks and profiles that were not asked for,
    and tables that say nothing.
    """
    settings = dict(card.settings)
    method = str(settings.get("candidate", "")).removeprefix("method:")
    attacks = {str(spec).partition("=")[0].strip() for spec in settings.get("attacks") or ()}
    used: dict[str, Collection[str]] = {"method": {method}, "attack": attacks}
    if not (card.own or settings.get("adaptations")):  # which may name any profile
        used["profile"] = set(settings.get("profiles") or ())
    for field, names in used.items():
        if isinstance(table := settings.get(field), Mapping):
            settings[field] = {name: table[name] for name in table if name in names}
    return {field: value for field, value in settings.items() if value != {}}
