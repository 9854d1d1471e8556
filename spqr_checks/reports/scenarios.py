"""The table of scenarios, as SPQR's papers lay it out, and beside it each one's own prompts."""

from __future__ import annotations

from spqr_checks.matrix import AXES
from spqr_checks.reports.text import NOTHING, figure, score, span
from spqr_checks.scoring.scenarios import Row, scenario_rows
from spqr_checks.scoring.scorecard import Scorecard

HEADER = (
    *("scenario", "profile", "fine-tuned on", "prompts", *AXES, "SPQR"),
    *("its prompts, unsafe before", "after", "rise", "interval", "n"),
)
SAID = (
    "Without credits. S and P: prompts of the scenario; Q: of the run; R: after the scenario's "
    "fine-tuning, over the harmful prompts of all scenarios. Then the scenario's own harmful "
    "prompts before and after its fine-tuning, paired on prompt and seed."
)


def table_rows(card: Scorecard) -> list[list[str]]:
    """What `HEADER` names; none for a run without scenarios."""
    return [_cells(row) for row in scenario_rows(card)]


def _cells(row: Row) -> list[str]:
    named = [row.scenario, row.profile, row.data, row.prompts]
    scores = [score(value) for value in (*row.axes.values(), row.spqr)]
    own = row.own
    if own is None:
        return [*named, *scores, *[NOTHING] * 5]
    rates = [figure(flagged / own.n, "rate") for flagged in (own.before, own.after)]
    rise = [figure(own.rise, "points"), span(own.interval, "points")]
    return [*named, *scores, *rates, *rise, str(own.n)]
