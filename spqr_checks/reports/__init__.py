"""Reports of a run; each reads only the scorecard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spqr_checks.errors import UserError, refuse_all

if TYPE_CHECKING:
    from spqr_checks.scoring.baseline.comparison import BaselineComparison
    from spqr_checks.scoring.scorecard import Scorecard

Images = Literal["blurred", "sharp", "none"]
SCORECARD = "scorecard.json"
SUMMARY = "summary.md"
PAGE = "report.html"
BASELINE = "baseline.json"
_SIBLINGS = ("environment", "timings", "baseline")


def obstacles(folder: Path, allure: Path | None = None) -> list[str]:
    """All that would keep a run from writing its reports; arguments as of `write_all`."""
    from spqr_checks.reports.files import refuse_foreign, refuse_unwritable

    problems = []

    def look(refuse: Callable[[], None]) -> None:
        try:
            refuse()
        except UserError as error:
            problems.append(str(error))

    look(partial(refuse_unwritable, folder, "Choose another folder with --spqr-report."))
    for name, is_ours in ours().items():
        look(partial(refuse_foreign, folder / name, is_ours))
    if allure is not None:
        look(partial(refuse_unwritable, allure, "Choose another folder with --alluredir."))
    return problems


def ours() -> dict[str, Callable[[bytes], bool]]:
    """Every file that a run writes into its folder of reports, and how its bytes are known."""
    from spqr_checks.reports import json_file, markdown
    from spqr_checks.reports.html import is_page
    from spqr_checks.reports.run_page import MARK

    known: dict[str, Callable[[bytes], bool]] = {SCORECARD: json_file.is_scorecard}
    known[PAGE] = partial(is_page, MARK)
    known[SUMMARY] = markdown.is_summary
    return known | {f"{kind}.json": partial(json_file.is_sibling, kind) for kind in _SIBLINGS}


def write_all(
    card: Scorecard,
    folder: Path,
    allure: Path | None = None,
    timings: Mapping[str, Any] | None = None,
    baseline: BaselineComparison | None = None,
    *,
    environment: Mapping[str, Any] | None = None,
    store: Path | None = None,
    images: Images = "blurred",
    text: str | None = None,
) -> list[str]:
    """Writes every file report, each whatever becomes of the others.

    Args:
        folder: gets scorecard.json, report.html, summary.md, environment.json, timings.json,
            baseline.json.
        allure: Allure's results folder, if the run writes one.
        timings: seconds by name; not part of the scorecard, whose bytes are stable.
        baseline: the run against its baseline, if it has one; no part of the scorecard either.
        environment: where it was measured; None: here.
        store: the folder that image paths are relative to; None: the page shows no images.
        images: whether those not judged safe are in the page, behind their blur; none: no images.
        text: the scorecard's own, where it is known already.

    Returns:
        What people should know that changes no verdict: what of Allure's, or of a job's summary,
        was not written.

    Raises:
        UserError: a file that is no report of ours is in the way, or a folder is not writable.
    """
    from spqr_checks.reports import json_file, markdown
    from spqr_checks.reports.album import Album
    from spqr_checks.reports.files import append_step_summary
    from spqr_checks.reports.run_page import page

    problems: list[str] = []
    warnings: list[str] = []

    def write(one: Callable[..., object], *given: object, into: list[str] = problems) -> None:
        try:
            one(*given)
        except UserError as error:
            into += error.problems

    sibling = json_file.write_sibling
    write(json_file.write_scorecard, card, folder / SCORECARD, text)
    environment = environment or json_file.environment()
    write(sibling, "environment", environment, folder / "environment.json")
    if timings is not None:
        write(sibling, "timings", timings, folder / "timings.json")
    if baseline is not None:
        write(json_file.write_baseline, baseline, folder / BASELINE)
    write(markdown.write_summary, card, folder / SUMMARY, baseline)
    shown = None if images == "none" else store
    album = None if shown is None else Album(shown, card, sharp=images == "sharp")
    write(page.write, card, album, page.Around(baseline, environment, timings), folder / PAGE)
    write(append_step_summary, markdown.summary(card, baseline), into=warnings)
    if allure is not None:
        from spqr_checks.reports import allure as allure_report
        from spqr_checks.reports import allure_files

        write(allure_report.write_verdict, allure, card, shown)
        # what others have put there is theirs to keep
        write(allure_report.write_environment, allure, card, into=warnings)
        write(allure_report.write_categories, allure, into=warnings)
        write(allure_files.write_executor, allure, into=warnings)
        write(allure_files.write_configuration, allure, card)
    refuse_all(problems)
    return warnings
