"""The methods as measured beside their ranks in the source paper, and what it says of methods.

python benchmarks/ranking.py spqr-leaderboard/*/scorecard.json [--multilingual GENERAL=MULTILINGUAL]

Two tables in Markdown: the ranking, then how far its order is the paper's (Spearman's ρ) and the
paper's statements, each with what decides it. `source_ranking.csv` holds the paper's figures: full
fine-tuning of SD 1.5, general scenario (arXiv 2511.19558, second version).

Intervals have the level of the scorecards. Those of ρ and of mean drifts are about other methods
like these (percentile bootstrap over methods). Those of differences between two methods are about
other images (the draws that the leaderboard ranks by); where the largest of many differences is
chosen, all of them together have that level (Bonferroni, normal tails), so that the choice does not
decide.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from scipy.stats import bootstrap, norm, pearsonr, rankdata

from spqr_checks.leaderboard.candidates import finished
from spqr_checks.matrix import AXES
from spqr_checks.runtime.named_models import METHOD
from spqr_checks.scoring.leaderboard import cohort
from spqr_checks.scoring.leaderboard.board import Entry, Leaderboard, Row
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.leaderboard.replicates import redraw
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import Interval

Verdict = Literal["holds", "does not hold", "not decided", "not measured"]
SOURCE = Path(__file__).parent / "source_ranking.csv"
PUBLISHED = "v2-published"
FEWEST = 4
"""Methods below which an interval over methods says nothing."""
_DRAWS, _RESAMPLES, _SHOWN = 4000, 9999, 3


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, and what the measured methods say to it."""

    statement: str
    verdict: Verdict
    because: str


@dataclass(frozen=True)
class Ranking:
    """Methods as measured: rows by name, their scorecards, axes drawn anew, the level."""

    board: Leaderboard
    cards: Mapping[str, Scorecard]
    draws: Mapping[str, Mapping[str, Floats]]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Ranking:
        """Ranks; the base takes part in the leaderboard and in no statement about methods."""
        board = rank(entries)
        ranked = {row.name for row in board.ranked}
        cards = {e.name: e.card for e in entries if e.card is not None and e.name in ranked}
        drawn = redraw(cards, board.seed, _DRAWS, board.level)
        return cls(board, cards, cohort.axes_over_draws(board.protocol, drawn))

    @property
    def methods(self) -> list[Row]:
        """Methods with a number whose uncertainty is known, the best first."""
        return [row for row in self.board.ranked if short(row.name) != row.name and row.interval]

    def score(self, name: str, axis: str) -> float:
        row = next(row for row in self.board.ranked if row.name == name)
        value = row.axes[axis].score
        assert value is not None, "a ranked candidate has every axis"
        return round(value, _SHOWN)  # what differs by less is a tie, however narrow its interval

    def difference(self, more: str, less: str, axis: str, among: int) -> tuple[float, Interval]:
        """``more`` minus ``less``, with an interval that holds for ``among`` of them at once."""
        value = self.score(more, axis) - self.score(less, axis)
        tail = (1 - self.board.level) / (2 * among)
        spread = norm.isf(tail) * float(np.std(self.draws[more][axis] - self.draws[less][axis]))
        return value, (value - spread, value + spread)


def short(name: str) -> str:
    return name.removeprefix(METHOD)


def decided(interval: Interval) -> Verdict:
    """Of a statement that something is above zero."""
    low, high = interval
    return "holds" if low > 0 else "does not hold" if high < 0 else "not decided"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a statement that is true if all of these are."""
    found = set(verdicts)
    if found == {"holds"}:
        return "holds"
    return "does not hold" if "does not hold" in found else "not decided"


def spelled(value: float, interval: Interval, form: str = "+.2f") -> str:
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("-", "−")


# ---- the order -------------------------------------------------------------------------------


def spearman(one: Floats, other: Floats, axis: int = -1) -> Floats:
    """Spearman's ρ along an axis; 0 where a side is constant and so has no order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pearsonr(rankdata(one, axis=axis), rankdata(other, axis=axis), axis=axis).statistic
    return np.nan_to_num(np.asarray(found))


def over_methods(
    columns: Sequence[Sequence[float]], statistic: Callable[..., Floats], level: float
) -> tuple[float, Interval]:
    """A statistic of columns with an entry for each method, and its bootstrap interval."""
    paired = [np.asarray(column, np.float64) for column in columns]
    found = bootstrap(
        paired,
        statistic,
        paired=True,
        vectorized=True,
        confidence_level=level,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(statistic(*paired)), (float(found.low), float(found.high))


def orders(ranking: Ranking, source: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Table of ρ between the paper's order and ours: of the number and of each axis."""
    rows = [row for row in ranking.methods if short(row.name) in source]
    if len(rows) < FEWEST:
        return [f"{len(rows)} methods of the paper are here: too few for an order."]
    level = ranking.board.level
    ours: dict[str, tuple[str, list[float]]] = {
        f"SPQR ({ranking.board.protocol})": ("SPQR", [row.spqr or 0.0 for row in rows])
    }
    published = [row.protocols[PUBLISHED].spqr for row in rows if PUBLISHED in row.protocols]
    known = [value for value in published if value is not None]
    if len(known) == len(rows):
        ours[f"SPQR ({PUBLISHED}, without credits)"] = ("SPQR", known)
    for axis in AXES:
        ours[axis] = (axis, [ranking.score(row.name, axis) for row in rows])
    lines = [f"| order by, {len(rows)} methods | Spearman's ρ with the paper's |", "|---|---|"]
    for what, (column, values) in ours.items():
        theirs = [source[short(row.name)][column] for row in rows]
        value, interval = over_methods([theirs, values], spearman, level)
        lines.append(f"| {what} | {spelled(value, interval)} |")
    numbers = np.stack([cohort.spqr_over_draws(ranking.draws[row.name]) for row in rows], axis=1)
    theirs = [source[short(row.name)]["SPQR"] for row in rows]
    again = spearman(np.broadcast_to(theirs, numbers.shape), numbers)
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
    said = f"Other images of these methods would put the first ρ at {low:+.2f} to {high:+.2f}."
    return [*lines, "", said.replace("-", "−")]


# ---- the statements --------------------------------------------------------------------------


def best_is_not_best(ranking: Ranking) -> Finding:
    """Whoever may be first by SPQR is beaten by somebody in S, and by somebody in Q."""
    statement = "The best method has neither the best S nor the best Q"
    methods = [row.name for row in ranking.methods]
    if len(methods) < 2:
        return Finding(statement, "not measured", "one method at most has a number")
    first = min(row.ranks[0] for row in ranking.methods if row.ranks)
    verdicts, reasons = set(), []
    for best in (row.name for row in ranking.methods if row.ranks and row.ranks[0] == first):
        own = []
        for axis in ("S", "Q"):
            others = [name for name in methods if name != best]
            rival = max(others, key=lambda name: ranking.score(name, axis))
            value, interval = ranking.difference(rival, best, axis, len(others))
            own.append(decided(interval))
            reasons.append(f"{axis} of {short(rival)} − {short(best)}: {spelled(value, interval)}")
        verdicts.add(together(own))
    # which of them is the best is not known: they must agree
    verdict = verdicts.pop() if len(verdicts) == 1 else "not decided"
    return Finding(statement, verdict, "; ".join(reasons))


def another_order(ranking: Ranking) -> Finding:
    """Some pair is ordered one way by S and the other way by R, certainly."""
    statement = "R orders methods differently from S"
    methods = [row.name for row in ranking.methods]
    if len(methods) < 2:
        return Finding(statement, "not measured", "one method at most has a number")
    among = comb(len(methods), 2)
    found: list[tuple[float, str]] = []
    alike = True
    for pair in combinations(methods, 2):
        a, b = sorted(pair, key=lambda name: -ranking.score(name, "S"))
        s, in_s = ranking.difference(a, b, "S", among)
        r, in_r = ranking.difference(b, a, "R", among)
        # the smaller lead over its own interval: above 1 where both are certain
        lead = min(s / max(s - in_s[0], 1e-12), r / max(r - in_r[0], 1e-12))
        text = f"{short(a)} above {short(b)} in S by {spelled(s, in_s)}, "
        text += f"below in R by {spelled(r, in_r)}"
        found.append((lead, text))
        alike &= in_s[0] > 0 and in_r[1] < 0
    lead, text = max(found)
    columns = [[ranking.score(name, axis) for name in methods] for axis in ("S", "R")]
    value, interval = over_methods(columns, spearman, ranking.board.level)
    if lead <= 0:
        text = "R orders no pair otherwise"
    verdict: Verdict = "holds" if lead > 1 else "does not hold" if alike else "not decided"
    return Finding(statement, verdict, f"{text} (ρ of S and R: {spelled(value, interval)})")


def drifts_more(ranking: Ranking, statement: str, field: str, less: str, more: str) -> Finding:
    """Mean over methods of how much further one fine-tuning drifts than another.

    Methods whose users fine-tune the released weights; a fine-tuning that could not be measured is
    left out together with its counterpart.

    Args:
        field: by which the two differ, ``profile`` or ``dataset``.
    """
    lines: list[float] = []
    for row in ranking.methods:
        if ranking.cards[row.name].candidate.get("attach") != "released":
            continue
        known: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
        for drift in row.drifts:
            if drift.value is not None:
                place = {"profile": drift.profile, "dataset": drift.dataset, "seed": drift.seed}
                kind = str(place.pop(field))
                known[tuple(place.values())][kind] = drift.value
        both = [d[more] - d[less] for d in known.values() if {less, more} <= d.keys()]
        if both:
            lines.append(fmean(both))
    if len(lines) < FEWEST:
        return Finding(statement, "not measured", f"both drifts are known of {len(lines)}")
    value, interval = over_methods([lines], np.mean, ranking.board.level)
    said = f"{more} − {less}: {spelled(value, interval, '+.1f')} points, {len(lines)} methods"
    said += f", {sum(line > 0 for line in lines)} of them above 0"
    return Finding(statement, decided(interval), said)


def findings(ranking: Ranking, multilingual: str = "") -> list[Finding]:
    """The paper's statements. ``multilingual``: labels of data sets, ``GENERAL=MULTILINGUAL``."""
    general, _, languages = multilingual.partition("=")
    return [
        best_is_not_best(ranking),
        another_order(ranking),
        drifts_more(ranking, "lite drifts less than standard", "profile", "lite", "standard"),
        drifts_more(
            ranking,
            "multilingual fine-tuning drifts more than general",
            "dataset",
            general,
            languages,
        ),
    ]


# ---- the tables ------------------------------------------------------------------------------


def source_figures() -> dict[str, dict[str, float]]:
    """The paper's figures, by method and column."""
    with SOURCE.open(encoding="utf-8", newline="") as file:
        return {
            row.pop("method"): {column: float(value) for column, value in row.items()}
            for row in csv.DictReader(file)
        }


def table(ranking: Ranking, source: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The ranking, with each method's place in the paper and among the paper's methods here."""
    theirs = sorted(source, key=lambda name: -source[name]["SPQR"])
    ours = [short(row.name) for row in ranking.methods if short(row.name) in source]
    lines = [
        f"| rank | candidate | SPQR | {' | '.join(AXES)} | rank in the paper | place here |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ranking.board.rows:
        name = short(row.name)
        places = ["", ""]
        if name in source and name in ours:
            places = [str(1 + theirs.index(name)), str(1 + ours.index(name))]
        if row.ranks is None or row.spqr is None:
            lines.append(f"| – | {name} | {row.reason} | | | | | {places[0]} | |")
            continue
        ranks = str(row.ranks[0]) if row.ranks[0] == row.ranks[1] else "–".join(map(str, row.ranks))
        number = f"{row.spqr:.3f}"
        if row.interval is not None:
            number += f" [{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
        axes = [f"{ranking.score(row.name, axis):.3f}" for axis in AXES]
        lines.append(f"| {' | '.join([ranks, name, number, *axes, *places])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scorecards", nargs="+", type=Path)
    parser.add_argument("--multilingual", default="", metavar="GENERAL=MULTILINGUAL")
    given = parser.parse_args()
    ranking, source = Ranking.of(finished(given.scorecards)), source_figures()
    print("\n".join([*table(ranking, source), "", *orders(ranking, source), ""]))
    print("| the paper says | here | what decides |\n|---|---|---|")
    for found in findings(ranking, given.multilingual):
        print(f"| {found.statement} | {found.verdict} | {found.because} |")


if __name__ == "__main__":
    main()
