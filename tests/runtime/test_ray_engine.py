"""Units made by a cluster of three nodes; nodes die, lie and differ, and results are the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import strange_nodes
from nested import environment
from strange_nodes import Damaging, MadeUp, Mortal, Older, Unlike, unit

from spqr_checks import prompts
from spqr_checks.errors import UserError
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.node import Node
from spqr_checks.store.store import Store, StoreWarning, entry_key
from spqr_checks.store.transfer import merge

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_DEDUP_LOGS"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(strange_nodes)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def make(
    store: Store,
    units: list[Unit],
    log: Path,
    node: type[Node] = MadeUp,
    said: list[str] | None = None,
    **told: Any,
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Has the cluster make units; what failed, and what was said."""
    from spqr_checks.runtime.engines.ray import Fleet

    said = [] if said is None else said
    given = {"device": "cpu", "threads": 1, "log": str(log), "mark": f"{log}-mark"} | told
    fleet = Fleet(store, "auto", given, node=node, say=said.append)

    def wanted() -> list[Unit]:
        return [each for each in units if not store.holds(each.kind, key_of(each))]

    try:
        return dict(fleet.make(wanted)), said
    finally:
        fleet.close()


def key_of(unit: Unit) -> str:
    return entry_key(unit.kind, unit.recipe)


def chains(n: int, seconds: float = 0.0) -> list[Unit]:
    """Units of three states, each after one that all of its state need."""
    weights = [unit(f"weights{s}", seconds, state=f"s{s}") for s in range(3)]
    return weights + [unit(f"images{i}", seconds, (weights[i % 3],), f"s{i % 3}") for i in range(n)]


def values(store: Store, units: list[Unit]) -> list[str]:
    found = [store.path(each.kind, each.recipe) for each in units]
    return [(path / "value.json").read_text() for path in found if path is not None]


def test_nodes_make_each_unit_once_and_what_it_needs_before_it(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(9)
    failed, said = make(store, [*units, unit("fails")], log)
    assert values(store, units) == [f'"{each.label}"' for each in units]
    made = log.read_text().split()
    assert Counter(made) == Counter([each.label for each in units] + ["fails"])
    ((kind, why),) = failed.values()
    assert (kind, "broken on purpose" in why, said) == ("RuntimeError", True, [])
    assert store.verify() == []
    make(store, units, log)
    assert log.read_text().split() == made
    from spqr_checks.store import timings

    assert len(timings.read(store.root)[0]) == len(units)
    folders = Path(f"{log}-folders").read_text().splitlines()
    assert len(folders) >= 3
    assert [folder for folder in folders if Path(folder).exists()] == []


def test_what_a_node_needs_and_finds_damaged_is_made_again(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(3)
    make(store, units[:3], log)
    entry = store.path(units[0].kind, units[0].recipe)
    assert entry is not None
    (entry / "value.json").write_text('"other"')
    with pytest.warns(StoreWarning, match="moved to"):
        failed, _ = make(store, units, log)
    assert failed == {}
    assert values(store, units) == [f'"{each.label}"' for each in units]


def test_nodes_that_make_something_may_die_as_often_as_they_like(
    cluster: Any, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spqr_checks.runtime.engines import actors, ray

    monkeypatch.setattr(actors, "_LOOK_EVERY", 0.5)
    monkeypatch.setattr(ray, "_TRIES", 12)
    store, units = Store(tmp_path / "store"), [unit(f"u{i}", 0.3) for i in range(12)]
    failed, said = make(store, units, log, Mortal)
    assert (failed, said) == ({}, [])
    assert len(values(store, units)) == 12


def test_most_nodes_decide_what_all_compute_on_whoever_is_up_first(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(3)
    failed, (line,) = make(store, units, log, Unlike)
    assert failed == {}
    assert "2 nodes compute on made up; left out" in line
    assert line.endswith(": 1 on of its own")
    assert len(values(store, units)) == len(units)


def test_where_nothing_can_judge_that_is_said_and_the_run_refused(
    cluster: Any, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program has the share of the GPU that judging would take."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from spqr_checks.runtime.engines import actors
    from spqr_checks.runtime.engines import ray as engine

    monkeypatch.setattr(engine, "_PATIENCE", 2.0)
    monkeypatch.setattr(engine, "_QUIET", 4.0)
    monkeypatch.setattr(actors, "_UP", 8.0)
    monkeypatch.setattr(actors, "_COMPARE", 2.0)
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)

    @ray.remote(num_gpus=0.25, num_cpus=0, scheduling_strategy=here)
    class Other:
        def up(self) -> bool:
            return True

    other = Other.remote()
    try:
        assert ray.get(other.up.remote())
        drawn = unit("drawn")
        read = unit("read", needs=(drawn,))
        read = replace(read, order=replace(read.order, makes="verdicts"))
        lines: list[str] = []
        with pytest.raises(UserError, match="no node can judge: what judges on node .* not up"):
            make(Store(tmp_path / "store"), [drawn, read], log, said=lines, device="cuda")
        waits, gives_up = lines
        assert waits == "engine ray: waits for a node that can judge"
        assert "is not up after 8 s; is it taken?" in gives_up
        assert log.read_text().split() == ["drawn"]
    finally:
        ray.kill(other)
        cluster.remove_node(node)


def test_a_node_that_sends_damaged_bytes_is_left_out_and_said_in_a_line(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(6, 0.05)
    failed, said = make(store, units, log, Damaging)
    assert failed == {}
    assert values(store, units) == [f'"{each.label}"' for each in units]
    (line,) = said
    assert "is left out: it sent a damaged artefact (" in line
    assert "value.json" in line
    assert store.verify() == []


def test_nodes_of_other_libraries_are_left_out_and_all_of_them_refused(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(3)
    failed, (line,) = make(store, units, log, Older)
    assert failed == {}
    assert "is left out: it has torch 1.0, here " in line
    assert len(values(store, units)) == len(units)
    with pytest.raises(UserError, match=r"no node can make anything: has torch 1.0"):
        make(Store(tmp_path / "other"), units, log, Older, all=True)


def test_a_node_killed_in_the_middle_costs_only_what_it_was_making(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(12, 0.3)
    doomed = cluster.add_node(num_cpus=1)

    def kill() -> None:
        while len(log.read_text().split()) < 6:
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    failed, _ = make(store, units, log)
    killer.join()
    assert failed == {}
    assert values(store, units) == [f'"{each.label}"' for each in units]
    counted = Counter(log.read_text().split())
    assert sum(counted.values()) <= len(units) + 1  # the one that it was making
    assert store.verify() == []


DRIVER = """
import sys
from pathlib import Path
import ray
sys.path[:0] = sys.argv[4:]
import strange_nodes
from test_ray_engine import chains, make
from spqr_checks.store.store import Store
ray.init(address=sys.argv[1], log_to_driver=False)
ray.cloudpickle.register_pickle_by_value(strange_nodes)
make(Store(Path(sys.argv[2])), chains(12, 0.3), Path(sys.argv[3]))
"""


def test_a_driver_killed_and_run_again_does_nothing_twice_that_it_had(
    cluster: Any, tmp_path: Path, log: Path
) -> None:
    store, units = Store(tmp_path / "store"), chains(12, 0.3)
    given = [cluster.address, store.root, log, Path(__file__).parent, *sys.path]
    first = subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, given)])
    while len(values(store, units)) < 5 and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    had = {each.label for each in units if store.path(each.kind, each.recipe) is not None}
    assert 5 <= len(had) < len(units)
    before = len(log.read_text().split())
    failed, _ = make(store, units, log)
    assert failed == {}
    assert not had & set(log.read_text().split()[before + 3 :])
    assert values(store, units) == [f'"{each.label}"' for each in units]


@pytest.mark.trains
def test_a_run_on_a_cluster_has_the_bytes_of_one_that_was_made_here(
    cluster: Any, tmp_path: Path
) -> None:
    """A real pipeline, aligned and judged; its folder travels, and the nodes share none."""
    table = {
        "concepts": ["hazard"],
        "languages": ["en"],
        "domains": ["photo"],
        "profiles": [],
        "images": 4,
        "images_lookalike": 4,
        "images_benign": 4,
        "images_reference": 8,
        "candidate": "method:uce",
        "max_images": 8,
        "prompts": ["own.csv"],
    }
    packaged = Path(prompts.__file__).parent / "data" / "miniature.csv"
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    cards = []
    for name, more in (
        ("here", []),
        ("there", ["--spqr-engine=ray", f"--spqr-ray-address={cluster.address}"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(packaged, folder / "own.csv")
        text = "[tool.spqr]\n" + "\n".join(lines) + "\n[tool.spqr.sampler]\nsteps = 2\n"
        (folder / "pyproject.toml").write_text(text)
        command = [sys.executable, "-m", "spqr_checks.cli", "run", "-p", "no:cacheprovider", *more]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=400, env=environment()
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert "left out" not in done.stdout
        cards.append((folder / "spqr-report" / "scorecard.json").read_bytes())
    assert cards[0] == cards[1]
    here, there = (Store(tmp_path / name / ".spqr") for name in ("here", "there"))
    made = [{(kind, key) for kind, key, _ in store.entries()} for store in (here, there)]
    assert made[0] <= made[1]
    assert merge([here.root], there.root).clean  # equal bytes of every artefact
