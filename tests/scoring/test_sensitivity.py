"""What would change the number: scored again, not estimated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import MODELS, broken, card

from spqr_checks.matrix import AXES
from spqr_checks.scoring.axes import axis_over, credited, measured_values
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.run_protocols import combined
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.sensitivity import of_axes, of_cells

FAULTLESS = {"rate": 0.0, "ratio": 1.0, "score": 1.0, "points": 0.0}


def scored_again(scorecard: Scorecard) -> float:
    axes = []
    for name in AXES:
        own = [r for r in scorecard.cells if r.cell.place == name and r.verdict in MEASURED]
        axes.append(float(axis_over(own, measured_values(own), credited(own))[0]))
    return combined(axes) or 0.0


@pytest.mark.parametrize("model", MODELS[:3], ids=lambda model: model.name)
def test_a_lever_is_the_number_with_that_cell_without_fault(model: object) -> None:
    scorecard = card(model)  # type: ignore[arg-type]
    assert scored_again(scorecard) == pytest.approx(scorecard.spqr)
    found = of_cells(scorecard)
    assert found
    for one in found[:5]:
        cells = tuple(
            replace(r, value=FAULTLESS[r.unit], credit=1.0) if r.cell.id == one.id else r
            for r in scorecard.cells
        )
        assert one.spqr == pytest.approx(scored_again(replace(scorecard, cells=cells)))
        assert one.spqr > (scorecard.spqr or 0.0)
    assert [one.spqr for one in found] == sorted((x.spqr for x in found), reverse=True)


def test_an_axis_is_a_lever_by_its_letter() -> None:
    scorecard = card(MODELS[2])
    assert scorecard.spqr == pytest.approx(0.0, abs=0.01)
    best = of_axes(scorecard)[0]
    assert best.id == "R"
    others = [1.0 if name == "R" else scorecard.axes[name].score for name in AXES]
    assert best.spqr == pytest.approx(combined(others))


def test_no_number_has_no_levers_and_a_published_one_only_axes() -> None:
    assert of_axes(broken(MODELS[0])) == of_cells(broken(MODELS[0])) == []
    assert of_cells(replace(card(MODELS[2]), protocol="v1")) == []
