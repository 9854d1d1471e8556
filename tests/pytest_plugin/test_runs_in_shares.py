"""A run in shares: each makes its own, joined they are the run, and a part never has a number."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from projects import card, card_bytes, started
from warm import arguments, fill

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import ElsewhereError
from spqr_checks.estimate.shards import shares
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.shard import ShardEngine
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.transfer import merge

SMALL: dict[str, Any] = {"concepts": "hazard"}
MODES = {
    "fixed": SMALL,
    "sequential": SMALL | {"mode": "sequential", "max_images": 72},
}
FIXED = {"mode": "fixed"}


class Copying:
    """Makes units as a whole run made them, and notes which."""

    deadline = None

    def __init__(self, whole: Store, store: Store, made: list[str]) -> None:
        self._whole, self._store, self._made = whole, store, made

    def require(self, unit: Unit) -> Path:
        for need in unit.needs:
            if need.kind == "images":  # the made-up world fine-tunes nothing
                self.require(need)
        source = self._whole.path(unit.kind, unit.recipe)
        assert source is not None, unit.label
        key = entry_key(unit.kind, unit.recipe)

        def write(draft: Path) -> None:
            self._made.append(key)
            shutil.copytree(source, draft, dirs_exist_ok=True)

        return self._store.receive(unit.kind, key, write)

    def at_work(self) -> AbstractContextManager[None]:
        return nullcontext()

    def claim(self) -> None:
        """Nothing is loaded here."""


def run(pytester: pytest.Pytester, *more: str, **settings: Any) -> pytest.RunResult:
    return started(pytester, *arguments(pytester.path, **settings), "-q", *more)


@pytest.fixture(autouse=True)
def _no_options(no_inherited_options: None) -> None:
    """The inner runs are this file's own."""


@pytest.mark.heavy
@pytest.mark.parametrize("mode", MODES)
def test_merged_shares_need_nothing_more_and_come_to_the_same_bytes(
    mode: str, pytester: pytest.Pytester
) -> None:
    settings, folder = MODES[mode], pytester.path
    whole = fill(folder / "whole", looks=3, **settings).run.store
    given = settings | {"images": 24, "store": str(whole.root)}
    code = run(pytester, **given).ret
    unsharded, made = card_bytes(pytester), []
    assert code in (0, 1)
    for place in range(3):
        here = Store(folder / f"shard {place}")
        session = session_of(folder, given | {"store": str(here.root)})
        share = shares(session, 3)[place]
        session.use(ShardEngine(Copying(whole, here, made), here, share))
        measured = list(measured_cells(session))
        assert share.cells is None or measured == [c for c in measured if c in share.cells]
    if mode == "fixed":
        assert len(made) == len(set(made))
    merged = Store(folder / "merged")
    assert merge([folder / f"shard {place}" for place in range(3)], merged.root).clean
    before = merged.usage()
    assert run(pytester, **(given | {"store": str(merged.root)})).ret == code
    after = {kind: n for kind, n in merged.usage().items() if kind != "scorecards"}
    assert after == before
    assert card_bytes(pytester) == unsharded


def session_of(folder: Path, given: dict[str, Any]) -> MeasuringSession:
    from warm import BASE_SETTINGS

    return MeasuringSession(Run.from_settings(load_settings(folder, BASE_SETTINGS | given)))


def measured_cells(session: MeasuringSession) -> Iterator[str]:
    for cell in session.run.matrix.cells:
        try:
            session.measure(cell)
        except ElsewhereError:
            continue
        yield cell.id


@pytest.mark.heavy
def test_a_share_says_how_much_it_measured_and_has_no_number(pytester: pytest.Pytester) -> None:
    session = fill(pytester.path, **SMALL)
    other = shares(session, 2)[1].keys
    for kind, key, _ in list(session.run.store.entries()):
        if kind == "verdicts" and key in other:
            session.run.store.remove(kind, key)
    left = session.run.store.usage()
    result = run(pytester, "--spqr-shard=1/2", **SMALL)
    assert result.ret == 3
    (said,) = [line for line in result.outlines if line.startswith("shard 1/2: partial: ")]
    scorecard = card(pytester)
    total = len(session.run.matrix.cells)
    missing = [one["id"] for one in scorecard["missing"]]
    assert f"{total - len(missing)} of {total} cells" in said
    assert 0 < len(missing) < total
    assert scorecard["spqr"] is None
    assert "left to another shard than 1/2" in str(scorecard["missing"])
    assert session.run.store.usage() == left


@pytest.mark.heavy
def test_a_share_whose_store_holds_all_is_the_run(pytester: pytest.Pytester) -> None:
    fill(pytester.path, **SMALL)
    code = run(pytester, **SMALL).ret
    whole = card_bytes(pytester)
    (pytester.path / "spqr-report" / "scorecard.json").unlink()
    result = run(pytester, "--spqr-shard=2/2", **SMALL)
    assert result.ret == code
    assert "partial" not in result.stdout.str()
    assert card_bytes(pytester) == whole


def test_own_checks_wait_for_the_merged_store(pytester: pytest.Pytester) -> None:
    fill(pytester.path, **SMALL)
    pytester.makepyfile("def test_it(spqr):\n    assert spqr.unsafe_rate() < 0.5\n")
    flags = [a for a in arguments(pytester.path, **SMALL) if a.startswith("--spqr")]
    result = started(
        pytester, *flags, "--spqr-shard=1/2", "-rs", "test_own_checks_wait_for_the_merged_store.py"
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*run own checks on the merged store*"])
