"""Orders: what one process asks another one of the same run to make."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import run_of

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.runtime.orders import Order
from spqr_checks.store.store import entry_key


def session_of(folder: Path) -> MeasuringSession:
    chosen = {"candidate": "method:uce", "concepts": "hazard", "languages": "en"}
    (folder / "words.txt").write_text("lightning\n", encoding="utf-8")
    chosen |= {"attacks": "unlearndiffatk", "guard": f"blocklist={folder / 'words.txt'}"}
    return MeasuringSession(run_of(folder, base=Path("miniature"), **chosen))


@pytest.mark.heavy
def test_every_unit_of_a_run_is_the_same_for_another_process(tmp_path: Path) -> None:
    ours, theirs = session_of(tmp_path), session_of(tmp_path)
    cells = ours.run.matrix.cells
    looks = [unit for cell in cells for look in (1, 2) for unit in ours.reads(cell, look)]
    made = set()
    for unit in [*ours.backlog(), *looks]:
        assert unit.order is not None
        order = Order.from_json(unit.order.to_json())
        made.add(order.makes)
        again = theirs.units.ordered(order)
        assert entry_key(again.kind, again.recipe) == entry_key(unit.kind, unit.recipe)
        assert (again.state, again.label) == (unit.state, unit.label)
    every = {"weights", "tuning", "attacked", "drawn", "images", "verdicts", "data"}
    assert made == every | {"adherence", "features"}


def test_in_the_backlog_everything_stands_behind_what_it_needs(tmp_path: Path) -> None:
    before: set[str] = set()
    for unit in session_of(tmp_path).backlog():
        assert {entry_key(need.kind, need.recipe) for need in unit.needs} <= before
        before.add(entry_key(unit.kind, unit.recipe))


def test_the_backlog_of_selected_cells_holds_what_they_and_their_controls_read(
    tmp_path: Path,
) -> None:
    session = session_of(tmp_path)
    every = {entry_key(unit.kind, unit.recipe) for unit in session.backlog()}
    (cell,) = (
        c
        for c in session.run.matrix.cells
        if (c.check, c.state.name, c.attack) == ("suppression", "aligned", None)
    )
    session.selected = {cell.id}
    listed = list(session.backlog())
    keys = [entry_key(unit.kind, unit.recipe) for unit in listed]
    assert set(keys) < every
    read = [cell, *session.run.matrix.control_of(cell)]
    wanted = {entry_key(u.kind, u.recipe) for one in read for u in session.reads(one, 1)}
    assert wanted <= set(keys)
    assert {unit.state.partition("+")[0] for unit in listed} <= {"", "base", "aligned"}
    assert not any("+" in unit.state for unit in listed), "no fine-tuning"
    for n, unit in enumerate(listed):
        assert {entry_key(need.kind, need.recipe) for need in unit.needs} <= set(keys[:n])
    session.selected = set()
    assert list(session.backlog()) == []


def test_what_is_no_order_is_refused() -> None:
    with pytest.raises(UserError, match="not an order"):
        Order.from_json('{"makes": "coffee"}')
