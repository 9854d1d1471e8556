"""Candidates side by side, ranked by SPQR as far as their measurements decide it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from spqr_checks.hashing import digest
from spqr_checks.scoring.axes import AXES
from spqr_checks.scoring.leaderboard.board import (
    VERSION,
    AxisScore,
    Comparison,
    Entry,
    Leaderboard,
    Row,
)
from spqr_checks.scoring.leaderboard.breakdown import by_category, by_tuning
from spqr_checks.scoring.leaderboard.comparable import refuse_differences, shared_settings
from spqr_checks.scoring.leaderboard.estimates import Estimates, refuse_edited
from spqr_checks.scoring.run_protocols import ProtocolScore
from spqr_checks.scoring.scorecard import Scorecard

__all__ = ["AxisScore", "Comparison", "Entry", "Leaderboard", "Row", "rank"]

DRAWS = 2000
LEVEL = 0.95


def rank(entries: Sequence[Entry], *, seed: int = 0, draws: int = DRAWS) -> Leaderboard:
    """Ranks candidates by their gated SPQR, with the uncertainty of the order.

    Intervals are percentiles of `replicates`, widened to hold what was measured. Two candidates
    are told apart where the interval of their paired difference excludes zero, and a candidate's
    ranks run from one more than those that are certainly better to those that are not certainly
    worse. The result does not depend on the order of the entries.

    Args:
        entries: candidates under distinct names.
        seed: of the draws; equal seeds give equal intervals.
        draws: replicates, at least 100.

    Raises:
        UserError: scorecards measured under different settings, or a number that does not follow
            from its scorecard's cells.
        ValueError: no entries, equal names, or too few draws.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names) or draws < 100:
        raise ValueError(f"cannot rank {names} with {draws} draws")
    cards = {entry.name: entry.card for entry in entries if entry.card is not None}
    refuse_differences(cards)
    ranked = {name: card for name, card in sorted(cards.items()) if card.spqr is not None}
    for name, card in ranked.items():
        refuse_edited(name, card)
    common = next(iter(cards.values()), None)
    level = _level(common)
    found = Estimates(ranked, common.protocol if common else "", seed, draws, level)
    order = sorted(ranked, key=lambda n: (-found.spqr[n], -(ranked[n].spqr_raw or 0.0), n))
    comparisons = tuple(
        found.compare(above, below) for i, above in enumerate(order) for below in order[i + 1 :]
    )
    others = sorted((e for e in entries if e.name not in ranked), key=lambda e: e.name)
    rows = [*(Entry(name, ranked[name]) for name in order), *others]
    return Leaderboard(
        version=VERSION,
        protocol=common.protocol if common else "",
        level=level,
        draws=draws,
        seed=seed,
        rows=tuple(_row(entry, found, comparisons, level) for entry in rows),
        comparisons=comparisons,
        base=common.base if common else {},
        judges=common.judges if common else [],
        settings=shared_settings(common) if common else {},
    )


def _level(card: Scorecard | None) -> float:
    """The level of the cells' intervals, which all scorecards share."""
    level = card.settings.get("level", LEVEL) if card else LEVEL
    return level if isinstance(level, float) and 0.5 < level < 1 else LEVEL


# ---- rows ------------------------------------------------------------------------------------


def _row(entry: Entry, found: Estimates, comparisons: Sequence[Comparison], level: float) -> Row:
    name, card = entry.name, entry.card
    if card is None:
        return _without_card(name, entry.fault or "there is no scorecard")
    row = Row(
        name=name,
        place=None,
        ranks=None,
        spqr=None,
        spqr_raw=None,
        interval=None,
        axes={a: AxisScore(card.axes[a].score, card.axes[a].raw, None) for a in AXES},
        reason=entry.fault or "; ".join(_without_number(card)),
        gate=card.gate,
        categories=by_category(card, level),
        drifts=by_tuning(card),
        protocols=card.protocols,
        fingerprint=digest(card.candidate),
    )
    if name not in found.cards:
        return row
    better = sum(c.decided for c in comparisons if c.below == name)
    worse = sum(c.decided for c in comparisons if c.above == name)
    return replace(
        row,
        place=1 + sum(other > found.spqr[name] for other in found.spqr.values()),
        ranks=(1 + better, len(found.cards) - worse),
        spqr=found.spqr[name],
        spqr_raw=_raw(card, found.protocols[name]),
        interval=found.interval(name),
        axes={a: found.axis(name, a) for a in AXES},
        reason="",
        protocols=found.protocols[name],
    )


def _without_card(name: str, reason: str) -> Row:
    none = dict.fromkeys(AXES, AxisScore(None, None, None))
    return Row(name, None, None, None, None, None, none, reason, None, {}, (), {}, "")


def _raw(card: Scorecard, protocols: Mapping[str, ProtocolScore]) -> float | None:
    known = protocols.get(card.protocol)
    return card.spqr_raw if known is None else known.spqr


def _without_number(card: Scorecard) -> Iterator[str]:
    """Why a run has no number, from its scorecard."""
    if not card.complete:
        first = card.missing[0]
        more = f" and {len(card.missing) - 1} more" if len(card.missing) > 1 else ""
        yield f"incomplete: {first.id} ({first.reason}){more}"
        return
    for name in AXES:
        axis = card.axes[name]
        if axis.score is None:
            yield f"{name} has no value: {axis.measured} of {axis.cells} cells could be measured"
