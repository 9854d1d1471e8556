"""Rows of scenarios: what belongs to each, and what its fine-tuning does to its own prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import MODELS, TUNINGS, N, card
from resampled import cell, ids, worse
from sample_runs import not_measurable

from spqr_checks.reports.markdown import summary
from spqr_checks.reports.run_page.page import Around, page
from spqr_checks.scoring.run_protocols import combined
from spqr_checks.scoring.scenarios import Row, scenario_rows
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.statistics.paired import newcombe

PHOTO = {"domains": ["photo"], "prompts": [], "wrap": []}
SCENARIOS = {
    "stripes": {"data": "miniature:stripes", "languages": ["en"], **PHOTO},
    "dots": {"data": "./dots", "languages": ["en", "hi"], **PHOTO},
}


def with_scenarios(of: Scorecard) -> Scorecard:
    return replace(of, settings={**of.settings, "matrix": "paper", "scenario": SCENARIOS})


CARD = with_scenarios(card(MODELS[2]))


def row(of: Scorecard, scenario: str, profile: str = "lite") -> Row:
    (found,) = [r for r in scenario_rows(of) if (r.scenario, r.profile) == (scenario, profile)]
    return found


def test_a_row_for_each_scenario_and_profile_and_none_without_scenarios() -> None:
    named = [(r.scenario, r.profile) for r in scenario_rows(CARD)]
    assert named == [(s, p) for s in SCENARIOS for p in ("lite", "standard")]
    assert scenario_rows(card(MODELS[2])) == ()
    assert scenario_rows(replace(CARD, complete=False)) == ()


def test_s_and_p_are_those_of_its_languages_and_domains_q_the_run_s_r_its_own() -> None:
    before = row(CARD, "stripes"), row(CARD, "dots")
    hindi = worse(CARD, "S-hazard-hi-photo-aligned", N)
    after = row(hindi, "stripes"), row(hindi, "dots")
    assert after[0] == before[0]
    assert after[1].axes["S"] == pytest.approx(before[1].axes["S"] - 1 / 5 / 2)  # type: ignore[operator]
    assert {k: v for k, v in after[1].axes.items() if k != "S"} == {
        k: v for k, v in before[1].axes.items() if k != "S"
    }
    drifts = {r.cell.state.tuning: r for r in CARD.cells if r.cell.check == "drift"}
    assert before[0].axes["R"] == pytest.approx(drifts[TUNINGS[0]].score)
    assert before[1].axes["R"] == pytest.approx(drifts[TUNINGS[1]].score)
    assert row(CARD, "stripes", "standard").axes["R"] == pytest.approx(drifts[TUNINGS[2]].score)
    assert row(CARD, "dots", "standard").axes["R"] is None  # which no fine-tuning is
    for one in before:
        assert one.axes["Q"] == CARD.axes["Q"].raw
        assert one.spqr == combined(list(one.axes.values()))


def test_its_own_prompts_before_and_after_are_paired() -> None:
    found = row(CARD, "stripes").own
    assert found is not None
    flags = {
        state: [
            i.flagged
            for name in ids(CARD)
            if "-en-" in name and name.endswith(f"-{state}")
            for i in cell(CARD, name).images
        ]
        for state in ("aligned", "lite.stripes.0")
    }
    was, now = flags["aligned"], flags["lite.stripes.0"]
    pairs = list(zip(was, now, strict=True))
    assert (found.before, found.after, found.n) == (sum(was), sum(now), len(was))
    assert found.rise == pytest.approx(100 * (sum(now) - sum(was)) / len(was))
    low, high = newcombe(
        *[pairs.count(p) for p in ((True, True), (False, True), (True, False), (False, False))]
    )
    assert found.interval == (100 * low, 100 * high)


def test_what_is_not_measurable_is_a_dash_and_not_a_zero() -> None:
    cells = tuple(
        not_measurable(r.cell) if r.cell.check == "suppression" and r.cell.language == "en" else r
        for r in CARD.cells
    )
    broken = replace(CARD, cells=cells)
    found = row(broken, "stripes")
    assert (found.axes["S"], found.spqr, found.own) == (None, None, None)
    assert row(broken, "dots").axes["S"] is not None
    (line,) = [
        line for line in summary(broken).splitlines() if line.startswith("| stripes | lite |")
    ]
    assert line.split(" | ")[4] == "—"


def test_the_run_s_page_holds_the_table_and_a_stranger_s_settings_none() -> None:
    text = page(CARD, None, Around())
    for words in ("One row for each scenario and profile", "miniature:stripes", "en, hi; photo"):
        assert words in text
    for scenario in ({"x": {"data": 3}}, "x", None, {"x": {"languages": []}}):
        strange = replace(CARD, settings={**CARD.settings, "scenario": scenario})
        assert scenario_rows(strange) == ()
