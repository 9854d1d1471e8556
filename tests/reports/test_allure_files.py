"""What Allure reads beside its results: executor, configuration (3) and history (2)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from boards import MODELS
from boards import card as made_up
from pages import HOSTILE
from PIL import Image
from sample_cards import FAILED, PASSED, card, draw_images, passed

from spqr_checks.errors import UserError
from spqr_checks.reports import write_all
from spqr_checks.reports.allure import write_verdict
from spqr_checks.reports.allure_files import (
    CONFIGURATION,
    write_configuration,
    write_executor,
    write_history,
)
from spqr_checks.reports.images import TILE
from spqr_checks.reports.text import numbers
from spqr_checks.scoring.history import Release
from spqr_checks.scoring.scorecard import Scorecard

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://example.org",
    "GITHUB_REPOSITORY": "me/model",
    "GITHUB_RUN_ID": "77",
    "GITHUB_RUN_NUMBER": "12",
    "GITHUB_WORKFLOW": "gate",
}
GITLAB = {"GITLAB_CI": "true", "CI_JOB_NAME": "spqr", "CI_PIPELINE_IID": "5", "CI_JOB_URL": "u"}


def executor(folder: Path, environ: dict[str, str], order: int | None = None) -> dict[str, Any]:
    write_executor(folder, order, environ)
    found = dict(json.loads((folder / "executor.json").read_text()))
    assert found.pop("reportName") == "spqr-checks"
    return found


def test_a_build_is_named_by_what_ran_it(tmp_path: Path) -> None:
    assert executor(tmp_path, GITHUB) == {
        "type": "github",
        "name": "gate",
        "buildOrder": 12,
        "buildName": "gate #12",
        "buildUrl": "https://example.org/me/model/actions/runs/77",
    }
    assert executor(tmp_path, GITLAB)["buildName"] == "spqr #5"
    assert executor(tmp_path, {}) == {"type": "local", "name": "spqr run"}
    assert executor(tmp_path, {}, 3)["buildOrder"] == 3
    assert executor(tmp_path, GITHUB, 3)["buildOrder"] == 12


# ---- the configuration of version 3 ----------------------------------------------------------

NODE = shutil.which("node")


def loaded(folder: Path, scorecard: Scorecard, *labels: tuple[str, str]) -> dict[str, Any]:
    """The configuration as node has it, and which environments a test with these labels is of."""
    if NODE is None:
        pytest.skip("there is no node to read the configuration with")
    write_configuration(folder, scorecard)
    given = json.dumps([{"name": name, "value": value} for name, value in labels])
    code = f"""
        import config from {json.dumps((folder / CONFIGURATION).as_uri())};
        const test = {{labels: {given}}};
        const found = Object.values(config.environments).filter((e) => e.matcher(test));
        const [rule] = config.qualityGate.rules;
        console.log(JSON.stringify({{
            categories: config.categories.rules,
            found: found.map((e) => e.variables),
            count: Object.keys(config.environments).length,
            gate: [rule.maxFailures, rule.minTestsCount],
            asked: ["SPQR gate", "another"].map((name) => rule.filter({{name}})),
        }}));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_categories_gate_and_environments_are_as_node_reads_them(tmp_path: Path) -> None:
    state = FAILED.cell.state.name
    found = loaded(tmp_path, card(), ("spqr.language", "en"), ("spqr.state", state))
    names = [rule["name"] for rule in found["categories"]]
    assert names[0] == "Safety regression"
    assert names[-1] == "Infrastructure error"
    assert re.match(found["categories"][0]["messageRegex"], "safety regression: 3 of 4")
    assert found["found"] == [{"language": "en", "state": state}]
    assert found["count"] == len({(r.cell.language, r.cell.state) for r in card().cells})
    assert found["gate"] == [0, 1]
    assert found["asked"] == [True, False]


@pytest.mark.heavy
def test_no_text_is_obeyed_by_the_configuration(tmp_path: Path) -> None:
    for text in (*HOSTILE, "\u2028*/", "${1}`", '"});process.exit(9);({'):
        hostile = replace(PASSED, cell=replace(PASSED.cell, language=text))
        found = loaded(tmp_path, card(cells=(hostile,)), ("spqr.language", "en"))
        assert (found["count"], found["found"]) == (1, [])


def test_a_configuration_of_somebody_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / CONFIGURATION).write_text("export default {};")
    with pytest.raises(UserError, match="already there"):
        write_configuration(tmp_path, card())
    (tmp_path / CONFIGURATION).unlink()
    for _ in range(2):
        write_configuration(tmp_path, card())


def test_a_run_writes_them_beside_its_results(tmp_path: Path) -> None:
    write_all(passed(), tmp_path / "report", tmp_path / "allure")
    written = {path.name for path in (tmp_path / "allure").iterdir()}
    assert {"executor.json", CONFIGURATION, "categories.json", "environment.properties"} <= written


def test_what_others_have_put_there_stays_and_is_said(tmp_path: Path) -> None:
    allure = tmp_path / "allure"
    allure.mkdir()
    theirs = {
        "executor.json": '{"type": "jenkins", "buildOrder": 4}',
        "categories.json": '[{"name": "Mine"}]',
        "environment.properties": "mine = yes\n",
    }
    for name, text in theirs.items():
        (allure / name).write_text(text)
    said = write_all(passed(), tmp_path / "report", allure)
    for name, text in theirs.items():
        assert (allure / name).read_text() == text
        assert any(f"{name} is already there" in line for line in said)
        (allure / name).unlink()
    for _ in range(2):  # ours is written anew
        assert write_all(passed(), tmp_path / "report", allure) == []


# ---- images side by side ---------------------------------------------------------------------


def gate(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*-result.json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_images_before_and_after_stand_in_the_view_for_two_images(tmp_path: Path) -> None:
    before, after = (draw_images(tmp_path / n, [n == "after"]) for n in ("before", "after"))
    cells = (
        replace(PASSED, images=(replace(before[0], path=f"before/{before[0].path}"),)),
        replace(FAILED, images=(replace(after[0], path=f"after/{after[0].path}"),)),
    )
    write_verdict(tmp_path / "allure", card(cells=cells), tmp_path)
    step = gate(tmp_path / "allure")["steps"][-1]
    (attachment,) = step["attachments"]
    assert attachment["type"] == "application/vnd.allure.image.diff"
    assert attachment["name"].startswith("newly unsafe: a red triangle")
    content = json.loads((tmp_path / "allure" / attachment["source"]).read_text())
    assert content.keys() == {"expected", "actual", "diff"}
    assert all(uri.startswith("data:image/png;base64,") for uri in content.values())
    expected, actual, both = (
        Image.open(BytesIO(b64decode(content[name].split(",")[1])))
        for name in ("expected", "actual", "diff")
    )
    assert expected.size == actual.size == (TILE, TILE)
    assert both.width > 2 * TILE
    # the square's own blue is there; the flagged triangle's red is blurred away
    assert (30, 60, 200) in set(expected.getdata())
    assert (220, 20, 30) not in set(actual.getdata()) | set(both.getdata())


def test_a_lost_image_is_said_and_the_verdict_stays(tmp_path: Path) -> None:
    write_verdict(tmp_path / "allure", made_up(MODELS[2]), tmp_path)
    step = gate(tmp_path / "allure")["steps"][-1]
    assert "is missing in the store" in step["statusDetails"]["message"]
    assert gate(tmp_path / "allure")["status"] == "failed"


# ---- history ---------------------------------------------------------------------------------


def test_version_2_gets_the_trend_and_the_past_of_each_cell(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of cells"):
        write_history(tmp_path, [])
    parameters = [{"name": "cell", "value": FAILED.cell.id}]
    (tmp_path / "a-result.json").write_text(
        json.dumps({"historyId": "h1", "parameters": parameters})
    )
    (tmp_path / "b-result.json").write_text("{half")
    before = card(cells=(replace(FAILED, verdict="pass"), PASSED))
    write_history(tmp_path, [Release("r1", before), Release("r2", card())])
    trend = json.loads((tmp_path / "history" / "history-trend.json").read_text())
    assert [one["buildOrder"] for one in trend] == [2, 1]
    assert trend[1]["data"] == {
        "failed": 1, "broken": 0, "skipped": 0, "passed": 2, "unknown": 0, "total": 3,
    }  # fmt: skip
    history = json.loads((tmp_path / "history" / "history.json").read_text())
    assert [item["status"] for item in history["h1"]["items"]] == ["failed", "passed"]
    assert history["h1"]["statistic"] == {"failed": 1, "passed": 1, "total": 2}
    assert json.loads((tmp_path / "executor.json").read_text())["buildOrder"] == 3


def with_results(folder: Path, scorecard: Scorecard) -> None:
    """Results of a run's cells, as allure-pytest writes what the plugin tells it."""
    folder.mkdir(exist_ok=True)
    for n, result in enumerate(scorecard.cells):
        said = [("cell", result.cell.id), *numbers(replace(result, credit=0.5))]
        parameters = [{"name": name, "value": value} for name, value in said]
        (folder / f"{n}-result.json").write_text(
            json.dumps(
                {"uuid": str(n), "name": result.cell.id, "historyId": f"h{n}", "status": "passed",
                 "start": 1, "stop": 2, "parameters": parameters}
            )
        )  # fmt: skip


def test_the_run_whose_results_these_are_is_counted_by_allure_alone(tmp_path: Path) -> None:
    before = card(cells=(replace(FAILED, value=0.5), PASSED))
    latest = card(cells=(FAILED, PASSED))
    with_results(tmp_path, latest)
    for releases in ([Release("r1", before)], [Release("r1", before), Release("r2", latest)]):
        write_history(tmp_path, releases)
        trend = json.loads((tmp_path / "history" / "history-trend.json").read_text())
        assert [one["reportName"] for one in trend] == ["r1"]
        history = json.loads((tmp_path / "history" / "history.json").read_text())
        assert [past["statistic"]["total"] for past in history.values()] == [1, 1]
        assert json.loads((tmp_path / "executor.json").read_text())["buildOrder"] == 2
    write_history(tmp_path, [Release("r1", latest), Release("r2", before)])
    trend = json.loads((tmp_path / "history" / "history-trend.json").read_text())
    assert [one["reportName"] for one in trend] == ["r2", "r1"]


def test_a_history_and_an_executor_of_somebody_else_are_kept(tmp_path: Path) -> None:
    with_results(tmp_path, card())
    (tmp_path / "history").mkdir()
    theirs = {"history/history-trend.json": "[]", "executor.json": '{"type": "jenkins"}'}
    for name, text in theirs.items():
        (tmp_path / name).write_text(text)
    releases = [Release("r1", passed())]
    with pytest.raises(UserError, match=r"history-trend\.json is already there"):
        write_history(tmp_path, releases)
    assert not (tmp_path / "history" / "history.json").exists()
    (tmp_path / "history" / "history-trend.json").unlink()
    for _ in range(2):
        write_history(tmp_path, releases)
    assert (tmp_path / "executor.json").read_text() == theirs["executor.json"]


ALLURE = shutil.which("allure")


@pytest.mark.slow
@pytest.mark.skipif(ALLURE is None, reason="there is no allure to make a report with")
def test_version_2_itself_counts_each_release_once(tmp_path: Path) -> None:
    assert ALLURE is not None
    version = subprocess.run([ALLURE, "--version"], capture_output=True, text=True, check=True)
    if not version.stdout.startswith("2."):
        pytest.skip("this is another version")
    results, out = tmp_path / "results", tmp_path / "report"
    with_results(results, card())
    write_history(results, [Release("r1", passed()), Release("r2", card())])
    subprocess.run([ALLURE, "generate", results, "-o", out], check=True, capture_output=True)
    trend = json.loads((out / "widgets" / "history-trend.json").read_text())
    assert [one.get("buildOrder") for one in trend] == [2, 1]
