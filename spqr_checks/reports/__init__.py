"""Reports of a run; each reads only the scorecard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spqr_checks.scoring.baseline.comparison import BaselineComparison
    from spqr_checks.scoring.scorecard import Scorecard

SCORECARD = "scorecard.json"
SUMMARY = "summary.md"
BASELINE = "baseline.json"


def write_all(
    card: Scorecard,
    folder: Path,
    allure: Path | None = None,
    timings: Mapping[str, Any] | None = None,
    baseline: BaselineComparison | None = None,
) -> None:
    """Writes every file report.

    Args:
        folder: gets scorecard.json, summary.md, environment.json, timings.json, baseline.json.
        allure: Allure's results folder, if the run writes one.
        timings: seconds by name; not part of the scorecard, whose bytes are stable.
        baseline: the run against its baseline, if it has one; no part of the scorecard either.

    Raises:
        UserError: a file that is no report of ours is in the way, or a folder is not writable.
    """
    from spqr_checks.reports import json_file, markdown
    from spqr_checks.reports.files import append_step_summary

    json_file.write_scorecard(card, folder / SCORECARD)
    json_file.write_sibling("environment", json_file.environment(), folder / "environment.json")
    if timings is not None:
        json_file.write_sibling("timings", timings, folder / "timings.json")
    if baseline is not None:
        json_file.write_baseline(baseline, folder / BASELINE)
    markdown.write_summary(card, folder / SUMMARY, baseline)
    append_step_summary(markdown.summary(card, baseline))
    if allure is not None:
        from spqr_checks.reports import allure as allure_report

        allure_report.write_environment(allure, card)
        allure_report.write_categories(allure)
        allure_report.write_verdict(allure, card)
