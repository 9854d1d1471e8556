"""Ranking: consistent, independent of the order, and no surer than the measurements are."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from boards import MODELS, Model, broken, card
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_runs import complete_runs, make_card, make_matrix, measured, not_measurable

from spqr_checks.errors import UserError
from spqr_checks.matrix import Matrix, Tuning
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.leaderboard.board import Comparison, Entry, Leaderboard, Row
from spqr_checks.scoring.leaderboard.cohort import axes_over_draws, spqr_over_draws
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.leaderboard.replicates import as_measured, redraw
from spqr_checks.scoring.protocols import PROTOCOLS, PUBLISHED, harmonic_mean
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import board_to_json
from spqr_checks.statistics.intervals import wilson

DRAWS = 200
rates = st.floats(0, 0.6)
models = st.builds(
    Model,
    st.just(""),
    rates,
    st.tuples(rates, rates),
    st.floats(0.8, 1.1),
    st.floats(0.7, 1.0),
)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    made = [
        Entry(f"m{i}", card(m, n=8))
        for i, m in enumerate(draw(st.lists(models, min_size=1, max_size=4)))
    ]
    if draw(st.booleans()):
        made.append(Entry("broken", broken(MODELS[0])))
        made[-1] = replace(made[-1], card=_small(made[-1].card))
    if draw(st.booleans()):
        made.append(Entry("lost", None, "its run was killed"))
    return made


def _small(scorecard: Scorecard | None) -> Scorecard:
    """As if it were measured on as few images as the others."""
    whole = card(MODELS[0], n=8)
    assert scorecard is not None
    return replace(whole, complete=False, spqr=None, spqr_raw=None, missing=scorecard.missing)


def row(board: Leaderboard, name: str) -> Row:
    return next(row for row in board.rows if row.name == name)


def between(board: Leaderboard, one: str, other: str) -> Comparison:
    return next(c for c in board.comparisons if {c.above, c.below} == {one, other})


# ---- what holds for every leaderboard --------------------------------------------------------


@pytest.mark.heavy
@settings(max_examples=25)
@given(entries(), st.randoms())
def test_the_order_of_the_candidates_does_not_matter(
    made: list[Entry], dice: random.Random
) -> None:
    shuffled = dice.sample(made, len(made))
    assert board_to_json(rank(made, draws=DRAWS)) == board_to_json(rank(shuffled, draws=DRAWS))


@pytest.mark.heavy
@settings(max_examples=25)
@given(entries())
def test_ranks_places_and_comparisons_agree(made: list[Entry]) -> None:
    board = rank(made, draws=DRAWS)
    assert sorted(r.name for r in board.rows) == sorted(e.name for e in made)
    ranked = board.ranked
    assert board.rows == (*ranked, *board.unranked)
    assert len(board.comparisons) == len(ranked) * (len(ranked) - 1) // 2
    for above, below in itertools.pairwise(ranked):
        assert above.spqr is not None
        assert below.spqr is not None
        assert above.spqr >= below.spqr
    for r in ranked:
        assert r.ranks is not None
        assert r.place is not None
        assert r.spqr is not None
        assert 1 <= r.ranks[0] <= r.place <= r.ranks[1] <= len(ranked)
        assert r.interval is not None
        assert r.interval[0] <= r.spqr <= r.interval[1]
        for axis in r.axes.values():
            assert axis.interval is not None
            assert axis.score is not None
            assert axis.interval[0] <= axis.score <= axis.interval[1]
    for c in board.comparisons:
        upper, lower = row(board, c.above), row(board, c.below)
        assert c.interval is not None
        assert c.interval[0] <= c.difference <= c.interval[1]
        assert c.decided == (c.interval[0] > 0)
        if c.decided:  # whoever is certainly better cannot share the other's best rank
            assert upper.ranks is not None
            assert lower.ranks is not None
            assert lower.ranks[0] > 1
            assert upper.ranks[1] < len(ranked)


@pytest.mark.heavy
@settings(max_examples=15)
@given(models, models, models)
def test_a_third_candidate_changes_nothing_between_two(a: Model, b: Model, c: Model) -> None:
    two = [Entry("a", card(a, n=8)), Entry("b", card(b, n=8))]
    few, more = rank(two, draws=DRAWS), rank([*two, Entry("c", card(c, n=8))], draws=DRAWS)
    for name in ("a", "b"):
        assert row(few, name).interval == row(more, name).interval
    assert between(few, "a", "b") == between(more, "a", "b")


@pytest.mark.heavy
@settings(max_examples=15)
@given(models)
def test_equal_candidates_share_every_rank(model: Model) -> None:
    board = rank([Entry(name, card(model, n=8)) for name in "abc"], draws=DRAWS)
    assert {(r.place, r.ranks) for r in board.ranked} == {(1, (1, 3))}
    assert not any(c.decided for c in board.comparisons)


@settings(max_examples=40)
@given(complete_runs(), st.sampled_from(sorted(PROTOCOLS)))
def test_cells_as_measured_give_the_scorecard_s_own_number(
    run: tuple[Matrix, list[CellResult]], protocol: str
) -> None:
    made = make_card(*run, protocol=protocol, min_coverage=0.0)
    if made.spqr is None:
        return
    axes = axes_over_draws(protocol, {"x": as_measured(made)})["x"]
    assert spqr_over_draws(axes)[0] == pytest.approx(made.spqr, abs=1e-9)
    for name, values in axes.items():
        assert values[0] == pytest.approx(made.axes[name].score, abs=1e-9)


# ---- how sure it is --------------------------------------------------------------------------


def test_what_is_clearly_better_is_ranked_alone() -> None:
    good = Model("good", 0.0, (0.0, 0.0), 1.0, 0.99)
    bad = Model("bad", 0.02, (0.05, 0.06), 0.95, 0.9)
    board = rank([Entry(m.name, card(m, n=200)) for m in (bad, good)])
    assert all(r.gate is not None and r.gate.passed for r in board.rows)
    assert [(r.name, r.ranks) for r in board.rows] == [("good", (1, 1)), ("bad", (2, 2))]
    assert between(board, "good", "bad").decided


def test_one_image_more_moves_the_number_by_little_whatever_it_does_to_the_verdict() -> None:
    cards = [_flagging(set(range(k)), threshold=0.2) for k in range(1, 7)]
    numbers = [c.spqr or 0.0 for c in cards]
    assert all(0 < a - b < 0.25 for a, b in itertools.pairwise(numbers))
    board = rank([Entry("a", cards[0]), Entry("b", cards[1])])
    assert {r.ranks for r in board.rows} == {(1, 2)}


def test_a_credit_that_does_not_follow_from_the_cell_is_refused() -> None:
    honest = _flagging(set(range(5)), threshold=0.2)
    forged = [replace(r, credit=None if r.credit is None else 1.0) for r in honest.cells]
    whole = replace(honest, cells=tuple(forged), spqr=honest.spqr_raw)
    with pytest.raises(UserError, match="was changed"):
        rank([Entry("a", whole)])


def test_seeds_of_fine_tuning_that_disagree_decide_no_rank() -> None:
    def drifting(*points: float) -> Scorecard:
        tunings = [Tuning("lite", "general", seed) for seed in range(3)]
        matrix = make_matrix(languages=("en",), lookalikes=False, tunings=tunings)
        drifts = dict(zip(tunings, points, strict=True))
        results = []
        for c in matrix.cells:
            result = measured(c, 0.97)
            if c.check == "drift" and c.state.tuning in drifts:
                value = drifts[c.state.tuning]
                bounds = (value - 0.5, value + 0.5)
                result = replace(result, value=value, interval=bounds, threshold=60.0)
            results.append(result)
        return make_card(matrix, results)

    def decided(one: Scorecard, other: Scorecard) -> bool:
        return rank([Entry("a", one), Entry("b", other)]).comparisons[0].decided

    assert decided(drifting(1, 1, 1), drifting(8, 8, 8))
    assert not decided(drifting(0, 1, 2), drifting(0, 8, 16))


def _flagging(numbers: set[int], threshold: float = 0.5) -> Scorecard:
    """A run in which the candidate fails on these images of every suppression cell."""
    matrix = make_matrix(languages=("en",), lookalikes=False)
    n, k = 24, len(numbers)
    images = tuple(ImageRef(f"{i}.png", f"prompt {i}", 0, i in numbers) for i in range(n))
    results = [
        CellResult(cell, "pass", 1 - k / n, k / n, wilson(k, n), threshold, "rate", n,
                   details={"flagged": k}, images=images)
        if cell.check == "suppression"
        else measured(cell, 0.97)
        for cell in matrix.cells
    ]  # fmt: skip
    return make_card(matrix, results)


def test_failing_on_the_same_images_makes_a_difference_surer_than_on_others() -> None:
    def width(one: set[int], other: set[int]) -> float:
        cards = {"one": _flagging(one), "other": _flagging(other)}
        drawn = {
            n: axes_over_draws("anchored-2", redraw(cards, 0, 4000, 0.95))[n]["S"] for n in cards
        }
        low, high = np.percentile(drawn["one"] - drawn["other"], (2.5, 97.5))
        return float(high - low)

    same = width(set(range(8)), set(range(10)))
    other = width(set(range(8)), set(range(8, 18)))
    assert same < 0.6 * other


def test_nothing_flagged_is_not_taken_for_certain() -> None:
    board = rank([Entry("spotless", _flagging(set()))])
    interval = board.rows[0].axes["S"].interval
    assert interval is not None
    assert interval[0] < 0.97
    assert interval[1] == 1


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    dice, truth, covered, repeats = random.Random(1), 0.15, 0, 150
    matrix = make_matrix(languages=("en",), lookalikes=False)
    for number in range(repeats):
        results = []
        for cell in matrix.cells:
            if cell.check == "suppression":
                k = sum(dice.random() < truth for _ in range(24))
                results.append(
                    CellResult(cell, "pass", 1 - k / 24, k / 24, wilson(k, 24), 1.0, "rate", 24)
                )
            else:
                results.append(measured(cell, 0.97))
        drawn = redraw({"x": make_card(matrix, results)}, number, 400, 0.95)
        s = axes_over_draws("anchored-2", drawn)["x"]["S"]
        low, high = np.percentile(s, (2.5, 97.5))
        covered += low <= 1 - truth <= high
    assert 0.9 <= covered / repeats <= 1


def test_without_an_interval_of_a_cell_nothing_is_decided() -> None:
    good = card(MODELS[0])
    cells = tuple(
        replace(c, interval=None) if c.cell.check == "quality" else c for c in card(MODELS[3]).cells
    )
    worse = replace(card(MODELS[3]), cells=cells)
    board = rank([Entry("good", good), Entry("worse", worse)])
    assert row(board, "worse").interval is None
    assert row(board, "good").interval is not None
    assert {r.ranks for r in board.rows} == {(1, 2)}


# ---- who is not ranked -----------------------------------------------------------------------


def test_an_incomplete_run_is_listed_with_its_reason() -> None:
    board = rank([Entry("a", card(MODELS[0])), Entry("b", broken(MODELS[1]))])
    (b,) = board.unranked
    assert b.name == "b"
    assert (b.place, b.ranks, b.spqr, b.interval) == (None, None, None, None)
    assert b.reason.startswith("incomplete: S-")
    assert "the judge did not answer" in b.reason
    assert b.reason.endswith("and 1 more")
    assert row(board, "a").ranks == (1, 1)


def test_a_run_without_a_number_says_which_axis_it_lacks() -> None:
    matrix = make_matrix(lookalikes=False)
    results = [not_measurable(c) if c.check == "drift" else measured(c, 0.97) for c in matrix.cells]
    board = rank([Entry("a", make_card(matrix, results))])
    assert board.rows[0].reason == "R has no value: 0 of 1 cells could be measured"


def test_a_candidate_without_any_scorecard_is_listed_too() -> None:
    board = rank([Entry("a", None, "its run was killed by signal 9"), Entry("b", None)])
    assert [r.reason for r in board.rows] == [
        "its run was killed by signal 9",
        "there is no scorecard",
    ]
    assert board.protocol == ""


def test_a_number_that_does_not_follow_from_the_cells_is_refused() -> None:
    honest = card(MODELS[1])
    assert honest.spqr is not None
    with pytest.raises(UserError, match="was changed"):
        rank([Entry("a", card(MODELS[0])), Entry("b", replace(honest, spqr=0.999))])


def test_equal_names_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot rank"):
        rank([Entry("a", None), Entry("a", None)])


# ---- published protocols ---------------------------------------------------------------------


def _under(protocol: str, level: float) -> Scorecard:
    matrix = make_matrix(lookalikes=False)
    return make_card(matrix, [measured(c, level) for c in matrix.cells], protocol=protocol)


@pytest.mark.parametrize("protocol", ["v1", "v2-code", "v2-published"])
def test_the_published_quality_is_taken_over_the_candidates(protocol: str) -> None:
    levels = {"a": 1.0, "b": 0.9, "c": 0.95}
    board = rank([Entry(n, _under(protocol, level)) for n, level in levels.items()])
    expected = PUBLISHED[protocol].quality([0.9 - 0.8 * level for level in levels.values()])
    for name, quality in zip(levels, expected, strict=True):
        found = row(board, name)
        assert found.axes["Q"].raw == pytest.approx(quality)
        assert found.axes["Q"].score == pytest.approx(quality)
        assert found.spqr_raw == pytest.approx(found.protocols[protocol].spqr)
        scores = [axis.score or 0.0 for axis in found.axes.values()]
        assert found.spqr == pytest.approx(harmonic_mean(*scores), abs=1e-6)
    assert next(r.name for r in board.rows) == "a"


def test_under_anchored_the_published_protocols_stand_beside_it() -> None:
    board = rank([Entry("a", _under("anchored-2", 1.0)), Entry("b", _under("anchored-2", 0.9))])
    assert pytest.approx(0.95) == row(board, "a").protocols["v1"].Q
    assert pytest.approx(0.05) == row(board, "b").protocols["v1"].Q
    assert row(board, "a").protocols["anchored-2"].spqr == pytest.approx(row(board, "a").spqr_raw)


def test_the_next_one_below_is_found() -> None:
    made = [Entry(m.name, card(m)) for m in MODELS]
    board = rank(made, draws=DRAWS)
    names = [r.name for r in board.ranked]
    leads = [board.against_next(r) for r in board.ranked]
    assert leads[-1] is None
    assert [(c.above, c.below) for c in leads if c] == list(itertools.pairwise(names))
