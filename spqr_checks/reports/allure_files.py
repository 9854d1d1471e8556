"""What Allure reads beside its results: executor, configuration (3) and history (2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from allure_commons.utils import md5

from spqr_checks.errors import UserError
from spqr_checks.reports.allure import GATE, categories
from spqr_checks.reports.files import replace, replace_marked
from spqr_checks.reports.text import VERDICTS, measured
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.history import Release
from spqr_checks.scoring.scorecard import Scorecard

CONFIGURATION = "allurerc.mjs"
_MARK = "// written by spqr-checks"
_MOST_ENVIRONMENTS = 100
_STATUS: dict[Verdict, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "failed",
    "not_measurable": "skipped",
    "error": "broken",
}
_STATUSES = ("failed", "broken", "skipped", "passed", "unknown")
_PAST = 20
"""Runs of a test that Allure 2 shows."""


def write_executor(
    alluredir: Path, order: int | None = None, environ: Mapping[str, str] = os.environ
) -> None:
    """executor.json: which build made the results, by the variables of GitHub or GitLab.

    Args:
        order: of a build that no such variable numbers.

    Raises:
        UserError: the file cannot be written.
    """
    replace(alluredir / "executor.json", _json(_executor(environ, order)), lambda _: True)


def _executor(environ: Mapping[str, str], order: int | None) -> dict[str, Any]:
    if environ.get("GITHUB_ACTIONS"):
        at = "/".join(environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY"))
        number, url = environ.get("GITHUB_RUN_NUMBER", ""), environ.get("GITHUB_RUN_ID", "")
        kind, name = "github", environ.get("GITHUB_WORKFLOW", "GitHub Actions")
        url = f"{at}/actions/runs/{url}"
    elif environ.get("GITLAB_CI"):
        kind, name = "gitlab", environ.get("CI_JOB_NAME", "GitLab CI")
        number, url = environ.get("CI_PIPELINE_IID", ""), environ.get("CI_JOB_URL", "")
    else:
        kind, name, number, url = "local", "spqr run", "", ""
    found: dict[str, Any] = {"type": kind, "name": name}
    if number.isdecimal():
        found |= {"buildOrder": int(number), "buildName": f"{name} #{number}"}
    elif order is not None:
        found |= {"buildOrder": order, "buildName": f"{name} #{order}"}
    return found | ({"buildUrl": url} if url else {})


def write_configuration(alluredir: Path, card: Scorecard) -> None:
    """allurerc.mjs: categories, quality gate, environments and history for Allure 3.

    Version 3 reads neither categories.json nor a verdict that no test gives. Give the file to
    ``allure generate --config``; its history lies beside the folder of results.

    Raises:
        UserError: another file is in the way, or the place cannot be written.
    """
    environments = "".join(
        f"""    env{n}: {{
      name: {json.dumps(f"{language}, {state}")},
      variables: {json.dumps({"language": language, "state": state})},
      matcher: of({json.dumps(language)}, {json.dumps(state)}),
    }},
"""
        for n, (language, state) in enumerate(_places(card.cells), 1)
    )
    text = f"""{_MARK} for Allure 3; give it to `allure generate --config`
const has = (labels, name, value) => labels.some((l) => l.name === name && l.value === value);
const of = (language, state) => ({{ labels }}) =>
  has(labels, "spqr.language", language) && has(labels, "spqr.state", state);

export default {{
  name: "SPQR",
  historyPath: "allure-history.jsonl",
  categories: {{ rules: {_indented(categories())} }},
  qualityGate: {{
    rules: [
      {{
        id: "spqr",
        maxFailures: 0,
        minTestsCount: 1,
        filter: (result) => result.name === {json.dumps(GATE)},
      }},
    ],
  }},
  environments: {{
{environments}  }},
}};
"""
    replace_marked(alluredir / CONFIGURATION, text, _MARK)


def _places(results: Iterable[CellResult]) -> list[tuple[str, str]]:
    found = sorted({(r.cell.language, r.cell.state.name) for r in results})
    return found[:_MOST_ENVIRONMENTS]


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2).replace("\n", "\n  ")


def write_history(alluredir: Path, releases: Sequence[Release]) -> None:
    """history/ for Allure 2: the trend over releases, and each cell's own past.

    Cells are found in the results by their parameter ``cell``; what Allure calls a test's history
    is then that of the cell, however its test file has been moved.

    Raises:
        UserError: there are no results of cells, or the folder cannot be written.
    """
    known = dict(_history_ids(alluredir))
    if not known:
        raise UserError(f"{alluredir} holds no results of cells; run with --alluredir {alluredir}")
    write_executor(alluredir, len(releases) + 1)
    trend = [
        {"buildOrder": order, "reportName": release.name, "data": _counts(release.card)}
        for order, release in enumerate(releases, 1)
    ]
    history: dict[str, dict[str, Any]] = {}
    for release in reversed(releases):
        for result in release.card.cells:
            if (history_id := known.get(result.cell.id)) is None:
                continue
            past = history.setdefault(history_id, {"statistic": {}, "items": []})
            status = _STATUS[result.verdict]
            past["statistic"][status] = past["statistic"].get(status, 0) + 1
            past["statistic"]["total"] = past["statistic"].get("total", 0) + 1
            if len(past["items"]) < _PAST:
                said = f"{release.name}: {VERDICTS[result.verdict]}, {measured(result)}"
                uid = md5(release.name, result.cell.id)[:16]
                past["items"].append({"uid": uid, "status": status, "statusDetails": said})
    folder = alluredir / "history"
    replace(folder / "history-trend.json", _json(trend[::-1]), lambda _: True)
    replace(folder / "history.json", _json(history), lambda _: True)


def _history_ids(alluredir: Path) -> Iterable[tuple[str, str]]:
    for path in sorted(alluredir.glob("*-result.json")):
        try:
            result = json.loads(path.read_bytes())
            named = {p["name"]: p["value"] for p in result.get("parameters", [])}
            if "cell" in named:
                yield str(named["cell"]), str(result["historyId"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # a result that is half written is Allure's to complain of


def _counts(card: Scorecard) -> dict[str, int]:
    found = [_STATUS[result.verdict] for result in card.cells]
    found.append("broken" if not card.complete else "passed" if card.gate.passed else "failed")
    return {status: found.count(status) for status in _STATUSES} | {"total": len(found)}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
