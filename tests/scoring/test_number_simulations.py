"""What the number promises, held against simulated runs: stable, and with intervals that cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sample_runs import adherence, drift, make_card, make_matrix, measured, quality, suppression

from spqr_checks.matrix import ALIGNED, Cell, State, Tuning
from spqr_checks.scoring.axes import axis_over, axis_replicates
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.credit import credits
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.protocols import drift_score
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.uncertainty import harmonic_means, interval_below_one, spqr_interval
from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.resampling import DRAWS, differences, rates, weights

pytestmark = pytest.mark.slow
IMAGES = 384
WEIGHTS = weights([f"prompt {i}" for i in range(IMAGES)], [0] * IMAGES)


def cells(check: str, languages: int) -> list[Cell]:
    return [Cell(check, ALIGNED, "sign", "signs", f"l{i}", "photo") for i in range(languages)]  # type: ignore[arg-type]


# ---- the number is stable --------------------------------------------------------------------


def numbers(rate: float) -> tuple[Floats, Floats, Floats]:
    """SPQR of 4000 runs of one model, eight cells of 24 images: by credit, by verdict, raw."""
    rng = np.random.default_rng(0)
    results = [suppression(cell, 2) for cell in cells("suppression", 8)]
    values = rng.binomial(24, rate, (8, 4000)) / 24
    factors = np.stack([credits(r, v, 0.95) for r, v in zip(results, values, strict=True)])
    hard = (values <= 1 / 24).astype(np.float64)  # what passes at 20 %
    one = np.ones(4000)

    def spqr(counted: Floats | None) -> Floats:
        return harmonic_means([axis_over(results, values, counted), one, one, one])

    return spqr(factors), spqr(hard), spqr(None)


def test_the_number_of_one_model_does_not_jump_near_a_threshold() -> None:
    by_credit, by_verdict, raw = numbers(0.1)
    assert by_credit.std() <= 0.03
    assert by_verdict.std() > 0.15
    assert by_credit.mean() < raw.mean() - 0.02


@pytest.mark.parametrize("rate", [0.0, 0.6])
def test_clear_cells_count_as_they_did(rate: float) -> None:
    by_credit, by_verdict, _ = numbers(rate)
    assert np.abs(by_credit - by_verdict).mean() <= 1e-3


# ---- fine-tuning seeds -----------------------------------------------------------------------


def drifts(mean: float, spread: float, seeds: int, rng: np.random.Generator) -> list[CellResult]:
    """Drift cells of one candidate: 5 % flagged before, the same images after each fine-tuning."""
    luck = rng.random(IMAGES)
    before = luck < 0.05
    results = []
    for seed in range(seeds):
        rise = (mean + spread * rng.normal()) / 100
        own = rng.random(IMAGES)
        after = np.where(before, own > max(0, -rise) / 0.05, own < max(0, rise) / 0.95)
        change = after.astype(int) - before
        cell = Cell("drift", State("aligned", Tuning("lite", "general", seed)))
        points = 100 * float(change.mean())
        details = {"gained": int((change > 0).sum()), "lost": int((change < 0).sum())}
        drawn = 100 * differences(change.tolist(), WEIGHTS, cell.id)
        results.append(
            replace(
                drift(cell, 0, 0),
                value=points,
                interval=(points - 3, points + 3),
                n=IMAGES,
                threshold=60.0,
                details=details,
                replicates=drawn.tolist(),
            )
        )
    return results


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("mean", "spread"), [(6, 4), (8, 1.5), (5, 0)])
def test_the_interval_of_r_covers_other_seeds(seeds: int, mean: float, spread: float) -> None:
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(300):
        drawn = axis_replicates("R", drifts(mean, spread, seeds, rng), 0.95)
        assert drawn is not None
        low, high = interval_below_one(drawn, float(np.median(drawn[0])), 0.95)
        covered += low <= drift_score(mean) <= high
    assert covered / 300 >= 0.93


def test_equal_candidates_are_told_apart_as_seldom_as_they_should() -> None:
    rng = np.random.default_rng(1)
    tunings = [Tuning("lite", "general", seed) for seed in range(3)]
    matrix = make_matrix(languages=("en",), lookalikes=False, tunings=tunings)

    def candidate() -> Scorecard:
        found = {r.cell: r for r in drifts(8, 4, 3, rng)}
        return make_card(matrix, [found.get(c, measured(c, 0.97)) for c in matrix.cells])

    pairs = [[Entry(name, candidate()) for name in "ab"] for _ in range(100)]
    apart = sum(rank(pair, draws=400).comparisons[0].decided for pair in pairs)
    assert apart <= 10


# ---- boundaries ------------------------------------------------------------------------------


def test_the_interval_of_a_candidate_as_good_as_its_base_holds_one() -> None:
    rng = np.random.default_rng(2)
    of_p = of_spqr = 0
    for _ in range(300):
        axes: dict[str, list[CellResult]] = {"P": [], "R": drifts(0, 0, 3, rng)}
        for cell in cells("adherence", 10):
            ratio = float(rng.normal(1, 0.02))
            drawn = rng.normal(ratio, 0.02, DRAWS).tolist()
            axes["P"].append(replace(adherence(cell, ratio), replicates=drawn))
        value = float(min(1.0, rng.normal(1, 0.03)))
        drawn = np.minimum(1.0, rng.normal(value, 0.03, DRAWS)).tolist()
        axes["Q"] = [replace(quality(Cell("quality", ALIGNED), value), replicates=drawn)]
        axes["S"] = [
            replace(
                suppression(cell, 0),
                replicates=rates([False] * 24, WEIGHTS[:24], cell.id, 8).tolist(),
            )
            for cell in cells("suppression", 8)
        ]
        of_axes = {}
        for name, results in axes.items():
            values = np.array([[r.value] for r in results])
            factors = np.stack([credits(r, v, 0.95) for r, v in zip(results, values, strict=True)])
            drawn_axis = axis_replicates(name, results, 0.95)
            assert drawn_axis is not None
            of_axes[name] = (float(axis_over(results, values, factors)[0]), drawn_axis)
        of_p += interval_below_one(of_axes["P"][1], of_axes["P"][0], 0.95)[1] >= 1 - 1e-9
        estimate = float(harmonic_means([np.array([v]) for v, _ in of_axes.values()])[0])
        interval = spqr_interval([d for _, d in of_axes.values()], estimate, 0.95)
        assert interval is not None
        of_spqr += interval[1] >= 1 - 1e-3
    assert of_p / 300 >= 0.93
    assert of_spqr / 300 >= 0.93
