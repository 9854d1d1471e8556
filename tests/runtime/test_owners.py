"""Workers that share devices: one of them computes on each, for all, and nobody waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest

from spqr_checks.errors import BudgetError, UserError
from spqr_checks.runtime.board import Board
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.orders import Order
from spqr_checks.store import leases
from spqr_checks.store.store import Store

DEVICE, JUDGE = "cpu:0", "cpu:1"


class Bench:
    """Units that note who made them; ``makers`` stands for what occupies the device."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.units = root, root / "log", {}
        self.units: dict[str, Unit] = {}
        self.log.touch()

    def unit(
        self,
        name: str,
        state: str = "",
        act: Callable[[], None] = lambda: None,
        ordered: bool = True,
        device: str | None = None,
    ) -> Unit:
        def make(folder: Path) -> None:
            self.note(f"{name} begins")
            act()
            self.note(f"{name} ends {threading.current_thread().name}")
            (folder / "value.txt").write_text(name)

        order = Order("images", prompts=(name,)) if ordered else None
        about = {"state": state, "order": order, "device": device}
        unit = Unit("things", {"name": name}, name, make, **about)  # type: ignore[arg-type]
        self.units[name] = unit
        return unit

    def note(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text + "\n")

    def engine(
        self, backlog: Iterable[Unit] = (), deadline: float | None = None, **of: Any
    ) -> LocalEngine:
        return LocalEngine(
            *(Store(self.root / "store"), DEVICE, 1, lambda: list(backlog)),
            deadline=deadline,
            ordered=of.pop("ordered", lambda order: self.units[order.prompts[0]]),
            **of,
            free=lambda: self.note(f"freed {threading.current_thread().name}"),
        )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def made(self) -> list[str]:
        return [line.split()[0] for line in self.lines() if " ends " in line]

    def until(self, line: str) -> None:
        limit = time.monotonic() + 30
        while not any(one.startswith(line) for one in self.lines()):
            assert time.monotonic() < limit, f"{line}: never"
            time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Working(threading.Thread):
    """A worker: each unit is asked for by a test of its own."""

    def __init__(self, name: str, engine: LocalEngine, units: Iterable[Unit]) -> None:
        super().__init__(name=name, daemon=True)
        self.engine, self.asked, self.error = engine, list(units), None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for unit in self.asked:
                with self.engine.at_work():
                    self.engine.require(unit)
        except Exception as error:
            self.error = error

    def end(self) -> Exception | None:
        self.join(60)
        assert not self.is_alive(), f"{self.name} waits for ever"
        return self.error


def test_one_at_a_time_computes_and_stays_with_a_state(bench: Bench) -> None:
    units = [bench.unit(f"{s}{i}", s, lambda: time.sleep(0.02)) for i in range(5) for s in "ab"]
    orders = [units, units[::-1], units[3:] + units[:3]]
    workers = [Working(f"w{n}", bench.engine(units), order) for n, order in enumerate(orders)]
    assert [worker.end() for worker in workers] == [None] * 3
    steps = [line.split()[:2] for line in bench.lines() if not line.startswith("freed")]
    assert [what for _, what in steps] == ["begins", "ends"] * 10, "two computed at once"
    assert sorted(bench.made()) == sorted(bench.units), "made twice, or not"
    states = [name[0] for name in bench.made()]
    assert sum(one != two for one, two in pairwise(states)) == 1


def test_what_only_the_asker_can_make_is_left_to_it_and_the_device_is_freed_before(
    bench: Bench,
) -> None:
    slow, own = bench.unit("slow", act=lambda: time.sleep(0.5)), bench.unit("own", ordered=False)
    owner = Working("owner", bench.engine(), [slow])
    bench.until("slow begins")
    asker = Working("asker", bench.engine(), [own])
    assert owner.end() is asker.end() is None
    lines = bench.lines()
    assert lines.index("freed owner") < lines.index("own begins")
    assert "own ends asker" in lines


def test_a_device_is_left_to_who_is_ready_for_it(bench: Bench) -> None:
    units = [bench.unit(name) for name in ("a", "b")]
    waits = Working("waits", bench.engine(patience=0.5), units[:1])
    time.sleep(0.1)
    ready = Working("ready", bench.engine(), units[1:])
    assert (waits.end(), ready.end()) == (None, None)
    makers = {line.split()[0]: line.split()[-1] for line in bench.lines() if " ends " in line}
    assert makers == {"a": "ready", "b": "ready"}


def test_a_device_that_nobody_takes_is_taken_by_who_left_it_to_others(bench: Bench) -> None:
    alone = Working("alone", bench.engine(patience=0.1), [bench.unit("a")])
    assert alone.end() is None
    assert bench.made() == ["a"]


def test_before_the_first_test_an_owner_makes_what_the_run_needs(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("broken on purpose")

    fine, broken = bench.unit("fine"), bench.unit("broken", act=fail)
    engine = bench.engine([broken, fine])
    engine.work_ahead()
    assert bench.made() == ["fine"]
    with engine.at_work(), pytest.raises(RuntimeError, match="broken on purpose"):
        engine.require(broken)


def test_before_the_first_test_nobody_hears_of_a_plan_that_cannot_be_made(bench: Bench) -> None:
    bench.engine(bench.units[name] for name in ["unknown"]).work_ahead()
    assert bench.made() == []


def test_before_the_first_test_nothing_is_made_on_a_device_that_another_owns(bench: Bench) -> None:
    go_on = threading.Event()
    owner = Working("owner", bench.engine(), [bench.unit("slow", act=lambda: go_on.wait(30))])
    bench.until("slow begins")
    bench.engine([bench.unit("rest")]).work_ahead()
    assert "rest" not in bench.made()
    go_on.set()
    assert owner.end() is None


def test_before_the_first_test_who_owns_no_device_makes_nothing(bench: Bench) -> None:
    alone = LocalEngine(Store(bench.root / "store"), DEVICE, 1, lambda: [bench.unit("rest")])
    alone.work_ahead()
    assert bench.made() == []


def test_what_is_asked_for_is_made_before_what_may_be_needed(bench: Bench) -> None:
    slow = bench.unit("slow", "a", lambda: time.sleep(0.6))
    rest = [bench.unit(f"rest{i}", "a", lambda: time.sleep(0.05)) for i in range(4)]
    owner = Working("owner", bench.engine([slow, *rest]), [slow])
    bench.until("slow begins")
    asker = Working("asker", bench.engine(), [rest[-1]])
    assert owner.end() is asker.end() is None
    assert bench.made()[:2] == ["slow", "rest3"]
    assert all(line.endswith("owner") for line in bench.lines() if " ends " in line)


def test_an_error_is_raised_where_it_is_asked_for_and_nowhere_else(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("broken on purpose")

    slow, broken = bench.unit("slow", act=lambda: time.sleep(0.5)), bench.unit("broken", act=fail)
    fine = bench.unit("fine")
    owner = Working("owner", bench.engine([slow, broken, fine]), [slow])
    bench.until("slow begins")
    askers = [Working(f"asker{n}", bench.engine(), [broken]) for n in range(2)]
    assert owner.end() is None
    assert [str(asker.end()) for asker in askers] == ["broken on purpose"] * 2
    assert sorted(bench.made()) == ["fine", "slow"]


def test_a_worker_whose_time_is_over_waits_no_longer(bench: Bench) -> None:
    go_on = threading.Event()
    owner = Working("owner", bench.engine(), [bench.unit("slow", act=lambda: go_on.wait(30))])
    bench.until("slow begins")
    late = Working("late", bench.engine(deadline=time.time() + 0.3), [bench.unit("other")])
    assert isinstance(late.end(), BudgetError)
    go_on.set()
    assert owner.end() is None


def test_a_claimed_device_is_nobody_else_s_until_the_test_ends(bench: Bench) -> None:
    claimant = bench.engine()
    with claimant.at_work():
        claimant.claim()
        other = Working("other", bench.engine(), [bench.unit("other")])
        time.sleep(0.3)
        assert bench.made() == []
        bench.note("claim ends")
    assert other.end() is None
    assert bench.lines()[0] == "claim ends"
    assert bench.made() == ["other"]


@pytest.mark.parametrize("ordered", [True, False])
def test_the_owner_of_another_device_makes_what_waits_for_it_or_leaves_it(
    ordered: bool, bench: Bench
) -> None:
    """A judge beside the run's device: who got its device first is not who draws."""
    drawn = bench.unit("drawn", act=lambda: time.sleep(0.4))
    first = bench.unit("first", device=JUDGE, act=lambda: bench.until("drawn begins"))
    second = bench.unit("second", device=JUDGE, ordered=ordered)
    judging = Working("judging", bench.engine(), [first])
    bench.until("first begins")
    drawing = Working("drawing", bench.engine(), [drawn, second])
    assert judging.end() is drawing.end() is None
    assert bench.made()[-1] == "second"


def test_who_waits_to_own_a_device_makes_on_another_what_its_owner_waits_for(bench: Bench) -> None:
    judged, read = (bench.unit(name, device=JUDGE) for name in ("judged", "read"))

    class Claiming(Working):
        def run(self) -> None:
            with self.engine.at_work():
                self.engine.claim()
                bench.note("claimed")
                bench.until("judged ends")
                time.sleep(0.3)
                self.engine.require(read)

    class Second(Working):
        def run(self) -> None:
            with self.engine.at_work():
                bench.until("claimed")
                self.engine.require(judged)
                self.engine.claim()

    both = Claiming("first", bench.engine(), []), Second("second", bench.engine(), [])
    assert [one.end() for one in both] == [None, None]
    assert "read ends second" in bench.lines()


def test_runs_share_devices_and_neither_make_each_other_s_units_nor_wait_for_their_end(
    bench: Bench,
) -> None:
    """Another run's settings may make something else of the same order."""
    slow, mine = bench.unit("slow", act=lambda: time.sleep(0.3)), bench.unit("both")
    wrong = bench.engine([slow], run="one", ordered=lambda order: bench.units["both"])
    owner = Working("owner", wrong, [slow])
    bench.until("slow begins")
    other = bench.engine(run="two")
    with other.at_work():
        assert other.require(mine).is_dir()
        assert owner.end() is None, "it served a run that it does not belong to"
    assert [line for line in bench.lines() if line.startswith("both ends")] == [
        f"both ends {threading.main_thread().name}"
    ]


def test_an_ask_is_not_lost_on_who_reads_it_while_it_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, reader = Board(bench.root / "store"), Board(bench.root / "store")
    take = leases._take
    looks: list[int] = []

    def looked_at(file: IO[bytes], *, wait: bool) -> bool:
        if wait and "asks" in str(file.name) and not looks:
            looks.append(1)
            reader.asks()
        return take(file, wait=wait)

    monkeypatch.setattr(leases, "_take", looked_at)
    with asker.asking("key", DEVICE, "order"):
        assert looks
        (ask,) = reader.asks()
        assert (ask.key, ask.order) == ("key", "order")
    assert reader.asks() == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_when_an_owner_is_killed_another_takes_over(bench: Bench) -> None:
    units = [bench.unit(f"u{i}") for i in range(3)]
    stuck = bench.unit("stuck", act=lambda: time.sleep(600))

    def own() -> None:
        engine = bench.engine([*units, stuck])
        with engine.at_work():
            engine.require(stuck)

    process = multiprocessing.get_context("fork").Process(target=own)
    process.start()
    bench.until("stuck begins")
    workers = [Working(f"w{n}", bench.engine(units), units) for n in range(2)]
    time.sleep(0.3)
    assert bench.made() == []
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert [worker.end() for worker in workers] == [None, None]
    assert sorted(bench.made()) == ["u0", "u1", "u2"]
    board = Board(bench.root / "store")
    assert board.asks() == []
    assert not board.others_work(), "the killed one is still thought to be at work"


def test_a_store_that_can_only_be_read_is_enough_where_nothing_is_missing(bench: Bench) -> None:
    there, missing = bench.unit("there"), bench.unit("missing")
    bench.engine().require(there)
    # a file in the way: nothing can be written below, by whomever the test is run
    leases = bench.root / "store" / "leases"
    shutil.rmtree(leases)
    leases.touch()
    reader = bench.engine()
    with reader.at_work():
        assert reader.require(there).is_dir()
        with pytest.raises(UserError, match="store"):
            reader.require(missing)
