"""The methods beside the source paper's order: what the table and the verdicts rest on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import Model, card
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.alignment.registry import METHODS
from spqr_checks.reports.json_file import write_scorecard
from spqr_checks.scoring.leaderboard.board import AxisScore, Entry
from spqr_checks.scoring.protocols import harmonic_mean
from spqr_checks.scoring.scorecard import Scorecard

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import ranking as benchmark

sys.path.pop(0)
NAMES = ("rece", "uce", "esd", "spm", "mace")
N = 48


def measured(model: Model) -> Scorecard:
    found = card(model, n=N)
    return replace(found, candidate=found.candidate | {"attach": "released"})


def ranked(cards: Sequence[Scorecard]) -> Any:
    return benchmark.Ranking.of([Entry(str(c.candidate["name"]), c) for c in cards])


def same_but(**changes: tuple[float, tuple[float, float], float, float]) -> list[Scorecard]:
    """Methods that do alike, but for those that are named."""
    alike = (0.2, (0.2, 0.4), 0.95, 0.9)
    return [measured(Model(f"method:{n}", *changes.get(n, alike))) for n in NAMES]


@pytest.fixture(scope="module")
def one_beats_all() -> Any:
    """RECE is best in all; the others drift under standard."""
    return ranked(same_but(rece=(0.0, (0.0, 0.0), 1.0, 1.0)))


@pytest.fixture(scope="module")
def alike() -> Any:
    return ranked(same_but())


# ---- the paper's figures ---------------------------------------------------------------------


def test_the_paper_s_figures_are_those_of_methods_that_are_here_and_fit_together() -> None:
    figures = benchmark.source_figures()
    assert len(figures) == 11
    assert figures.keys() <= set(METHODS.own())
    for row in figures.values():
        axes = [row[axis] for axis in "SPQR"]
        assert row["SPQR"] == pytest.approx(harmonic_mean(*axes), abs=0.001)


# ---- order -----------------------------------------------------------------------------------

orders = st.lists(st.integers(-100, 100), min_size=3, max_size=11, unique=True)


@settings(max_examples=30)
@given(orders, st.randoms(use_true_random=False))
def test_the_correlation_is_one_of_ranks(values: list[int], dice: Any) -> None:
    one = np.asarray(values, float)
    other = np.asarray(dice.sample(values, len(values)), float)
    rho = float(benchmark.spearman(one, other))
    assert -1 - 1e-9 <= rho <= 1 + 1e-9
    assert float(benchmark.spearman(one, one)) == pytest.approx(1)
    assert float(benchmark.spearman(one, -other)) == pytest.approx(-rho)
    assert float(benchmark.spearman(one**3, other)) == pytest.approx(rho)


def test_what_has_no_order_is_no_agreement() -> None:
    assert float(benchmark.spearman(np.ones(5), np.arange(5.0))) == 0


def test_the_interval_of_an_order_is_wide_with_few_methods_and_holds_what_was_found() -> None:
    columns = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 3.0, 4.0, 6.0, 5.0]]
    value, (low, high) = benchmark.over_methods(columns, benchmark.spearman, 0.95)
    assert low < value <= high
    many = [column * 8 for column in columns]
    _, (closer, _) = benchmark.over_methods(many, benchmark.spearman, 0.95)
    assert low < closer


# ---- verdicts --------------------------------------------------------------------------------


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_verdict_is_what_the_whole_interval_says(one: float, other: float) -> None:
    low, high = sorted((one, other))
    verdict = benchmark.decided((low, high))
    assert (verdict == "holds") == (low > 0)
    assert (verdict == "does not hold") == (high < 0)


def test_what_is_true_only_together_falls_with_one_of_them() -> None:
    assert benchmark.together(["holds", "holds"]) == "holds"
    assert benchmark.together(["holds", "not decided"]) == "not decided"
    assert benchmark.together(["not decided", "does not hold"]) == "does not hold"


def test_a_method_that_is_best_in_all_contradicts_the_paper(one_beats_all: Any) -> None:
    found = benchmark.best_is_not_best(one_beats_all)
    assert found.verdict == "does not hold", found.because
    assert "rece" in found.because


def test_a_method_that_is_best_by_balance_agrees_with_the_paper() -> None:
    cards = same_but(
        uce=(0.04, (0.04, 0.04), 1.0, 0.9),
        esd=(0.0, (0.5, 0.6), 0.6, 0.5),
        mace=(0.5, (0.5, 0.6), 1.0, 1.0),
    )
    found = ranked(cards)
    assert found.methods[0].name == "method:uce"
    assert benchmark.best_is_not_best(found).verdict == "holds"
    assert benchmark.another_order(found).verdict == "holds"


def test_what_the_table_shows_alike_is_a_tie_even_without_noise(alike: Any) -> None:
    close = {"method:uce": 0.9, "method:esd": 0.9 + 1e-9, "method:spm": 0.902}
    rows = tuple(
        replace(row, axes=dict(row.axes) | {"Q": AxisScore(close.get(row.name, 0.5), None, None)})
        for row in alike.board.rows
    )
    still = {name: {"Q": np.zeros(9)} for name in alike.draws}
    found = replace(alike, board=replace(alike.board, rows=rows), draws=still)

    def verdict(more: str) -> str:
        _, interval = found.difference(more, "method:uce", "Q", 4)
        return str(benchmark.decided(interval))

    assert verdict("method:esd") == "not decided"
    assert verdict("method:spm") == "holds"


def test_an_order_that_r_repeats_is_no_other_one(one_beats_all: Any) -> None:
    found = benchmark.another_order(one_beats_all)
    assert found.verdict == "not decided", found.because


def test_drifts_are_compared_within_a_method_and_over_methods(alike: Any) -> None:
    found = benchmark.drifts_more(alike, "said", "profile", "lite", "standard")
    assert found.verdict == "holds", found.because
    assert "5 methods, 5 of them above 0" in found.because
    turned = benchmark.drifts_more(alike, "said", "profile", "standard", "lite")
    assert turned.verdict == "does not hold"


def test_where_users_fine_tune_the_base_nothing_is_said_of_the_method(alike: Any) -> None:
    modular = {
        name: replace(found, candidate=found.candidate | {"attach": "base"})
        for name, found in alike.cards.items()
    }
    modular["method:esd"] = alike.cards["method:esd"]
    found = benchmark.drifts_more(
        replace(alike, cards=modular), "said", "profile", "lite", "standard"
    )
    assert found.verdict == "not measured"
    assert "known of 1" in found.because


def test_languages_are_compared_where_there_is_a_data_set_of_them(one_beats_all: Any) -> None:
    verdicts = [f.verdict for f in benchmark.findings(one_beats_all)]
    assert verdicts[-1] == "not measured"
    asked = benchmark.findings(one_beats_all, "stripes=dots")
    assert asked[-1].verdict == "not decided", asked[-1].because  # alike but for the dice


# ---- the page --------------------------------------------------------------------------------


@pytest.mark.heavy
def test_ranks_of_the_paper_stand_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = [
        *same_but(mace=(0.0, (0.0, 0.0), 1.0, 1.0)),
        card(Model("base", 0.9, (0.9, 0.9), 1, 1), n=N),
    ]
    paths = [tmp_path / f"{n}" / "scorecard.json" for n in range(len(cards))]
    for path, made in zip(paths, cards, strict=True):
        write_scorecard(made, path)
    monkeypatch.setattr(sys, "argv", ["ranking.py", *map(str, paths)])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if line.startswith("| 1 |"))
    assert first.startswith("| 1 | mace |")
    assert first.endswith("| 5 | 1 |"), "fifth in the paper, first of these five here"
    assert sum(line.startswith("| SPQR (") for line in lines) == 2
    assert lines[-1].startswith(
        "| multilingual fine-tuning drifts more than general | not measured"
    )
