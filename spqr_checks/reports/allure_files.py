"""What Allure reads beside its results: executor, configuration (3) and history (2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from allure_commons.utils import md5

from spqr_checks.errors import UserError
from spqr_checks.reports.allure import GATE, categories, put
from spqr_checks.reports.files import refuse_foreign, replace, replace_marked
from spqr_checks.reports.text import VERDICTS, measured, numbers
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.history import Release
from spqr_checks.scoring.scorecard import Scorecard

CONFIGURATION = "allurerc.mjs"
_MEASURED = frozenset({"value", "interval", "threshold", "n"})
"""Numbers that scoring, which looks at all cells together, leaves as they are."""
_WRITTEN = "spqr-checks.json"
_REPORT = "spqr-checks"
_AS_IT_IS = "Move it away, or run with --clean-alluredir."
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
        UserError: somebody else's is there, whose build it then is, or it cannot be written.
    """
    content = _json(_executor(environ, order) | {"reportName": _REPORT})
    put(alluredir / "executor.json", content, _is_our_executor)


def _is_our_executor(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("reportName") == _REPORT


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
    replace_marked(alluredir / CONFIGURATION, _configuration(_places(card.cells)), _MARK)


def configure(folder: Path, results: Path) -> Path:
    """Such a file for results of anywhere, by their labels; returns it. Raises UserError."""
    language, state = "spqr.language", "spqr.state"
    named = [_by_name(result, "labels") for result in _results(results)]
    found = {(str(n[language]), str(n[state])) for n in named if n.keys() >= {language, state}}
    path = folder / CONFIGURATION
    replace_marked(path, _configuration(sorted(found)[:_MOST_ENVIRONMENTS]), _MARK)
    return path


def _configuration(places: Sequence[tuple[str, str]]) -> str:
    environments = "".join(
        f"""    env{n}: {{
      name: {json.dumps(f"{language}, {state}")},
      variables: {json.dumps({"language": language, "state": state})},
      matcher: of({json.dumps(language)}, {json.dumps(state)}),
    }},
"""
        for n, (language, state) in enumerate(places, 1)
    )
    return f"""{_MARK} for Allure 3; give it to `allure generate --config`
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


def _places(results: Iterable[CellResult]) -> list[tuple[str, str]]:
    found = sorted({(r.cell.language, r.cell.state.name) for r in results})
    return found[:_MOST_ENVIRONMENTS]


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2).replace("\n", "\n  ")


def write_history(alluredir: Path, releases: Sequence[Release]) -> None:
    """history/ for Allure 2: the trend over releases, and each cell's own past.

    Cells are found in the results by their parameter ``cell``; what Allure calls a test's history
    is then that of the cell, however its test file has been moved. Allure itself counts the run
    whose results these are, so a latest release that is this run is left out.

    Raises:
        UserError: there are no results of cells, a history or an executor of somebody else is
            there, or the folder cannot be written.
    """
    cells: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for history_id, parameters in _cells(alluredir):
        cells.setdefault(str(parameters["cell"]), (history_id, []))[1].append(parameters)
    if not cells:
        raise UserError(f"{alluredir} holds no results of cells; run with --alluredir {alluredir}")
    results = {cell: found for cell, (_, found) in cells.items()}
    is_there = bool(releases) and _is_the_run(results, releases[-1].card)
    past_ones = releases[: len(releases) - is_there]
    folder, written = alluredir / "history", alluredir / "history" / _WRITTEN
    earlier = _written(written)
    trend = [
        {"buildOrder": order, "reportName": release.name, "data": _counts(release.card)}
        for order, release in enumerate(past_ones, 1)
    ]
    history: dict[str, dict[str, Any]] = {}
    for release in reversed(past_ones):
        for result in release.card.cells:
            if result.cell.id not in cells:
                continue
            history_id, _ = cells[result.cell.id]
            past = history.setdefault(history_id, {"statistic": {}, "items": []})
            status = _STATUS[result.verdict]
            past["statistic"][status] = past["statistic"].get(status, 0) + 1
            past["statistic"]["total"] = past["statistic"].get("total", 0) + 1
            if len(past["items"]) < _PAST:
                said = f"{release.name}: {VERDICTS[result.verdict]}, {measured(result)}"
                uid = md5(release.name, result.cell.id)[:16]
                past["items"].append({"uid": uid, "status": status, "statusDetails": said})
    files = {"history-trend.json": _json(trend[::-1]), "history.json": _json(history)}
    for name in files:
        refuse_foreign(folder / name, lambda old: _sha(old) in earlier, _AS_IT_IS)
    # before the files, so that none is there that is not known as ours
    replace(written, _json(sorted({*earlier, *map(_sha, files.values())})), lambda _: True)
    for name, content in files.items():
        replace(folder / name, content, lambda _: True)
    replace(written, _json(sorted(map(_sha, files.values()))), lambda _: True)
    with suppress(UserError):  # whoever else wrote an executor knows the build better
        write_executor(alluredir, len(past_ones) + 1)


def _sha(content: bytes) -> str:
    return sha256(content).hexdigest()


def _written(path: Path) -> list[str]:
    """Digests of the files that an earlier call wrote; their own form has no room for a mark."""
    try:
        return [str(one) for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _is_the_run(cells: Mapping[str, Sequence[Mapping[str, Any]]], card: Scorecard) -> bool:
    """Whether results say of the same cells what a scorecard says that they measured."""
    known = {r.cell.id: [n for n in numbers(r) if n[0] in _MEASURED] for r in card.cells}
    return known.keys() == cells.keys() and all(
        any(all(one.get(name) == value for name, value in measured) for one in cells[cell])
        for cell, measured in known.items()
    )


def _cells(alluredir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What Allure knows the test of each cell by, and the parameters of its result."""
    for result in _results(alluredir):
        if "cell" in (named := _by_name(result, "parameters")) and "historyId" in result:
            yield str(result["historyId"]), named


def _results(alluredir: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(alluredir.glob("*-result.json")):
        try:
            result = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # a result that is half written is Allure's to complain of
        if isinstance(result, dict):
            yield result


def _by_name(result: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values of a list of names and values; none where it is no such list."""
    try:
        return {str(one["name"]): one["value"] for one in result.get(field, [])}
    except (TypeError, KeyError):
        return {}


def _counts(card: Scorecard) -> dict[str, int]:
    found = [_STATUS[result.verdict] for result in card.cells]
    found.append("broken" if not card.complete else "passed" if card.gate.passed else "failed")
    return {status: found.count(status) for status in _STATUSES} | {"total": len(found)}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
