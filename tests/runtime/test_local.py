"""The engine: builds what is missing, once, and something else while another process builds."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.store.store import Store


def unit(name: str, log: Path, needs: tuple[Unit, ...] = (), seconds: float = 0.0) -> Unit:
    def make(folder: Path) -> None:
        time.sleep(seconds)
        with log.open("a") as file:
            file.write(name + "\n")
        (folder / "value.txt").write_text(name)

    return Unit("things", {"name": name}, name, make, needs, heavy=False)


def engine(store: Store, backlog: list[Unit]) -> LocalEngine:
    return LocalEngine(store, "cpu", 1, lambda: backlog)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def test_needs_are_made_first_and_nothing_is_made_twice(store: Store, log: Path) -> None:
    weights = unit("weights", log)
    images = unit("images", log, (weights,))
    worker = engine(store, [])
    assert (worker.require(images) / "value.txt").read_text() == "images"
    worker.require(images)
    assert log.read_text().split() == ["weights", "images"]


def test_an_error_leaves_nothing_behind_and_passes_through(store: Store) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("broken on purpose")

    broken = Unit("things", {"name": "broken"}, "broken", fail, heavy=False)
    with pytest.raises(RuntimeError, match="on purpose"):
        engine(store, []).require(broken)
    assert store.path("things", {"name": "broken"}) is None


def test_while_another_builds_it_something_else_is_made(store: Store, log: Path) -> None:
    slow, other = unit("slow", log, seconds=0.8), unit("other", log)
    first = threading.Thread(target=engine(Store(store.root), []).require, args=(slow,))
    first.start()
    time.sleep(0.2)
    engine(store, [other]).require(slow)
    first.join()
    assert log.read_text().split() == ["other", "slow"]


def test_a_unit_whose_needs_are_missing_is_not_helped_with(store: Store, log: Path) -> None:
    slow = unit("slow", log, seconds=0.6)
    blocked = unit("blocked", log, (unit("never asked for", log),))
    first = threading.Thread(target=engine(Store(store.root), []).require, args=(slow,))
    first.start()
    time.sleep(0.2)
    engine(store, [blocked]).require(slow)
    first.join()
    assert log.read_text().split() == ["slow"]


def _work(root: Path, log: Path, order: list[int]) -> None:
    units = [unit(f"u{i}", log, seconds=0.02) for i in range(12)]
    worker = engine(Store(root), units)
    for i in order:
        worker.require(units[i])


def test_processes_share_the_work_and_make_each_unit_once(store: Store, log: Path) -> None:
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    orders = [list(range(12)), list(reversed(range(12))), [*range(6, 12), *range(6)]]
    processes = [context.Process(target=_work, args=(store.root, log, o)) for o in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == sorted(f"u{i}" for i in range(12))


def test_what_computes_on_the_cpu_does_not_wait_for_the_accelerator(store: Store) -> None:
    drawing, judged = threading.Event(), threading.Event()
    order: list[str] = []

    def draw() -> None:
        drawing.set()
        # the judge answers while the accelerator is taken, or never
        assert judged.wait(30), "the judge waited for the accelerator"
        order.append("drawn")

    def required(name: str, act: Callable[[], None], device: str | None) -> threading.Thread:
        def make(folder: Path) -> None:
            act()
            (folder / "value.txt").write_text(name)

        asked = Unit("things", {"name": name}, name, make, device=device)
        worker = LocalEngine(store, "cuda:0", 1, list)
        thread = threading.Thread(target=worker.require, args=(asked,), daemon=True)
        thread.start()
        return thread

    threads = [required("images", draw, None)]
    assert drawing.wait(30)
    threads.append(required("more images", lambda: order.append("drawn more"), None))
    threads.append(required("verdicts", judged.set, "cpu"))
    for thread in threads:
        thread.join(60)
    assert order == ["drawn", "drawn more"]
