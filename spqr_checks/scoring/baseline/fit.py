"""Whether an earlier scorecard can be the baseline of a run: measured alike, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spqr_checks.matrix import Adaptation, Tuning
from spqr_checks.scoring.baseline.regression import flags_of, shown
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.comparable import differences
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.scorecard import Scorecard

PLACES = ("the baseline", "this run")
_DECIDING = ("sampler", "distance")
"""Settings that decide what every cell measures. Numbers of images, thresholds and paths may
differ; which images a path leads to shows in the readings of the unaligned base."""

_ATTACKING = ("attack", "attack_prompts", "attack_seed")
"""Settings that decide what attacked cells measure."""
_ROUNDING = 1e-8


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures with what, known before it measures.

    Attributes:
        base, judges, settings: as in the scorecard; plain JSON values.
        texts: cell id → prompts of its images; empty where they are not known.
    """

    protocol: str
    base: Mapping[str, Any]
    judges: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    texts: Mapping[str, frozenset[str]]


def plan_of(card: Scorecard) -> Plan:
    """What a finished run measured."""
    texts = {m.id: frozenset[str]() for m in card.missing} | {
        r.cell.id: frozenset(image.prompt for image in r.images) for r in card.cells
    }
    return Plan(card.protocol, card.base, card.judges, card.settings, texts)


def first_obstacle(baseline: Scorecard, plan: Plan) -> str | None:
    """Why a run cannot be compared with a baseline, in a few words; None if it can.

    Number and kind of the images may differ, and so may thresholds and new cells of the run.
    """
    return next(_obstacles(baseline, plan), None)


def moved_base(baseline: Scorecard, card: Scorecard, margins: Mapping[str, float]) -> Iterator[str]:
    """Measurements of the unaligned base that moved by more than the margin of their axis.

    The base is the same in both runs. Where it does not measure the same on the same images, other
    reference images, another library or a fault lies between the runs, and would be taken for a
    change of the candidate. Cells under attack are not among these; see `other_attacks`.
    """
    yield from _moved(baseline, card, margins, attacked=False)


def other_attacks(baseline: Scorecard, card: Scorecard, margins: Mapping[str, float]) -> str | None:
    """Why cells under attack cannot be compared; None if they can, or where there are none."""
    was, now = (
        {name: part.get(name) for name in _ATTACKING} for part in (baseline.settings, card.settings)
    )
    if not any(r.cell.attack for r in baseline.cells) or not any(r.cell.attack for r in card.cells):
        return None
    other = differences("setting", was, now, PLACES)
    return next(other, None) or next(_moved(baseline, card, margins, attacked=True), None)


def _moved(
    baseline: Scorecard, card: Scorecard, margins: Mapping[str, float], attacked: bool
) -> Iterator[str]:
    theirs = {result.cell.id: result for result in card.cells}
    for was in baseline.cells:
        now = theirs.get(was.cell.id)
        if now is None or (was.cell.attack is not None) is not attacked:
            continue
        if not {was.verdict, now.verdict} & MEASURED:
            continue
        for what, step in _base_steps(was, now):
            if step > margins[was.cell.axis]:
                yield (
                    f"the unaligned base itself measures differently: {what} of cell "
                    f"{was.cell.id} moved by {step:.3g}"
                )


def notes(baseline: Scorecard, settings: Mapping[str, Any]) -> list[str]:
    """Differences that do not keep two runs from being compared, but that people should know."""
    found = []
    was, now = (
        part["thresholds"] if isinstance(part.get("thresholds"), Mapping) else {}
        for part in (baseline.settings, settings)
    )
    changed = [
        f"{name} {was.get(name)} -> {now.get(name)}"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]
    if changed:
        found.append(f"other thresholds than in the baseline: {', '.join(changed)}")
    for name in ("level", "mode", "reference", "datasets"):
        one, other = baseline.settings.get(name), settings.get(name)
        found += list(differences(f"setting {name}", one, other, PLACES))[:1]
    return found


def _obstacles(baseline: Scorecard, plan: Plan) -> Iterator[str]:
    if not baseline.complete:
        yield f"the baseline is an incomplete run: {len(baseline.missing)} cells are missing"
    for place, settings in zip(PLACES, (baseline.settings, plan.settings), strict=True):
        level = settings.get("level")
        if not (isinstance(level, float) and 0.5 < level < 1):
            yield f"the settings of {place} do not say the level of its intervals"
    yield from differences("protocol", baseline.protocol, plan.protocol, PLACES)
    yield from differences("base", _content(baseline.base), _content(plan.base), PLACES)
    yield from differences("judges", baseline.judges, plan.judges, PLACES)
    for name in (*_DECIDING, *_of_changes(baseline)):
        one, other = (_found(part, name) for part in (baseline.settings, plan.settings))
        yield from differences(f"setting {name}", one, other, PLACES)
    was = plan_of(baseline).texts
    beside = {result.cell.id for result in baseline.cells if result.cell.attack}
    gone = sorted(was.keys() - plan.texts.keys() - beside)
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        yield f"cell {gone[0]}{more} is in the baseline, but not in this run"
    for result in baseline.cells:
        cell = result.cell
        one, other = was[cell.id], plan.texts.get(cell.id, frozenset())
        if cell.attack is None and cell.row.shows_all and one and other and not one & other:
            yield f"cell {cell.id} has other prompts in the baseline, and none in common"


def _content(thing: Mapping[str, Any]) -> Any:
    """What something is, wherever it lies and however it is called."""
    return thing.get("recipe", thing)


def _of_changes(card: Scorecard) -> list[str]:
    """Settings behind the states of the baseline that came of the released ones."""
    changes = {r.cell.state.change for r in card.cells} - {None}
    profiles = sorted({f"profile.{c.profile}" for c in changes if isinstance(c, Tuning)})
    adapted = ["adaptation"] if any(isinstance(c, Adaptation) for c in changes) else []
    return [*profiles, *adapted, "dataset_limit"] if changes else []


def _found(settings: Mapping[str, Any], dotted: str) -> Any:
    value: Any = settings
    for part in dotted.split(".", 1):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _base_steps(was: CellResult, now: CellResult) -> Iterator[tuple[str, float]]:
    """What was read on the base, and how far it moved: in rates, ratios or shares of a scale."""
    one, other = set(shown(was)), set(shown(now))
    row = was.cell.row
    if row.control and row.unit == "rate" and (shared := one & other):
        rates = [sum(flags_of(r)[key] for key in shared) / len(shared) for r in (was, now)]
        yield "the rate", abs(rates[1] - rates[0])
    if was.n != now.n or one != other:
        return  # means over other images
    old, new = (
        {
            name: found
            for name in row.base_details
            if isinstance(found := r.details.get(name), float)
        }
        for r in (was, now)
    )
    scale = old.get("base_alignment", old.get("base_adherence", 0.0))
    if "base_distance" in old and "destroyed_distance" in old:
        scale = old["destroyed_distance"] - old["base_distance"]
    for name in sorted(old.keys() & new.keys()):
        step = abs(new[name] - old[name])
        yield name, step / abs(scale) if scale else float(step > _ROUNDING)
