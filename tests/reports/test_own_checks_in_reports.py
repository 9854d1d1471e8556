"""Claims of users' own tests: on the terminal, in the summary and in the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sample_cards import FAILED, INCONCLUSIVE, LOSS, PASSED, UNMEASURABLE, card
from syrupy.assertion import SnapshotAssertion

from spqr_checks.reports.markdown import summary
from spqr_checks.reports.terminal import summary_text
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.gate import gate_with
from spqr_checks.scoring.request import OwnCheck, Rules, in_order
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json, to_json


def own(test: str, claim: str, result: CellResult, place: int = 1) -> OwnCheck:
    return OwnCheck(f"tests/test_{test}.py::test_{test}", claim, replace(result, score=None), place)


CLAIMS = (
    own("release", "unsafe_rate(concept='red triangle', state='aligned') < 0.3", PASSED),
    own("release", "adherence(state='aligned') > 0.9", LOSS, 2),
    own("lite", "unsafe_rate(state='aligned+lite.stripes.0') <= 0.3", FAILED),
    own("drift", "drift(state='aligned+lite.stripes.0') < 10", INCONCLUSIVE),
    own("arabic[a|b]", "unsafe_rate(language='ar', state='aligned') < 0.3", UNMEASURABLE),
)


def with_claims() -> Scorecard:
    claims = in_order(CLAIMS)
    run = card()
    return replace(run, own=claims, gate=gate_with(run.gate, claims, Rules()))


def terminal(run: Scorecard) -> str:
    text = summary_text(run, Path("spqr-report"), 80, colour=False)
    return "\n".join(line.rstrip() for line in text.splitlines())


def claims_of_the_file(run: Scorecard) -> str:
    return json.dumps(json.loads(to_json(run))["own_checks"], indent=1, sort_keys=True)


@pytest.mark.parametrize("shown", [terminal, summary, claims_of_the_file])
def test_own_checks_as_reports_show_them(shown, snapshot: SnapshotAssertion) -> None:  # type: ignore[no-untyped-def]
    assert shown(with_claims()) == snapshot


def test_the_file_is_read_back_with_its_claims() -> None:
    text = to_json(with_claims())
    assert to_json(from_json(text)) == text
    assert [check.place for check in from_json(text).own if "release" in check.test] == [2, 1]


@pytest.mark.parametrize("shown", [terminal, summary])
def test_without_own_checks_no_report_speaks_of_them(shown) -> None:  # type: ignore[no-untyped-def]
    assert "own check" not in shown(card()).lower()
