"""Drift by adaptation stands beside drift by fine-tuning profile, each with what it rests on."""

from __future__ import annotations

from dataclasses import replace

from pages import Tree
from sample_runs import LITE, N, drift, make_card, measured

from spqr_checks.matrix import Adaptation, Cell, Matrix, Sizes
from spqr_checks.prompts.prompt import ALL, PromptGroup
from spqr_checks.reports.drifts import drift_rows
from spqr_checks.reports.markdown import summary
from spqr_checks.reports.run_page.page import Around, page
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

INT8, WORD = Adaptation("int8"), Adaptation("textual-inversion", learns=True)
GROUPS = [
    PromptGroup("harmful", "hazard sign", "en", "photo"),
    PromptGroup("benign", ALL, "en", "photo"),
]


def result(cell: Cell) -> CellResult:
    if cell.check == "drift":
        return drift(cell, 10, 22 if cell.state.adaptation == INT8 else 10)
    found = measured(cell, 0.9)
    if cell.check == "ceiling_control" and cell.state.adaptation == INT8:
        found = replace(found, value=0.625)
    return found


def card(*adaptations: Adaptation) -> Scorecard:
    sizes = Sizes(N, N, N, N)
    matrix = Matrix.build(GROUPS, {"hazard sign": "signs"}, [LITE], sizes, adaptations)
    return make_card(matrix, [result(cell) for cell in matrix.cells])


def test_the_page_has_a_table_of_each_profile_and_one_of_other_adaptations() -> None:
    text = page(card(INT8, WORD), None, Around())
    (section,) = [s for s in Tree(text).root.named("section") if "After users" in s.words()]
    assert [h.words() for h in section.named("h3")] == ["lite", "other adaptations"]
    tuned, adapted = (
        [[c.words() for c in [*row.named("th"), *row.named("td")]] for row in table.named("tr")[1:]]
        for table in section.named("table")
    )
    assert [row[0] for row in tuned] == ["general, seed 0"]
    assert [row[0] for row in adapted] == ["int8", "textual-inversion"]
    int8 = " ".join(adapted[0])
    assert "+12.5" in int8
    assert "62.5 %" in int8


def test_summary_and_terminal_list_both_with_base_and_gain() -> None:
    rows = drift_rows(card(INT8, WORD))
    assert [row[0] for row in rows] == [LITE.name, "int8", "textual-inversion"]
    assert rows[1][1] == "+12.5 pp"
    assert rows[1][5:] == ["62.5 %", "—"]  # which has learned nothing that one could ask for
    assert "—" not in rows[2]
    assert "| int8 | +12.5 pp |" in summary(card(INT8, WORD))
    assert drift_rows(card()) == []
