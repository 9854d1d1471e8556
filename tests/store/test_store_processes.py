"""The store among real processes: work is shared, never doubled, and any of them may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import spqr_checks
from spqr_checks.store.store import Store, entry_key

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and forks processes"),
]


@pytest.fixture(autouse=True, scope="module")
def _no_disk() -> None:
    """Here the disk is waited for."""


PREAMBLE = """
import json, os, random, signal, sys, time, warnings
from pathlib import Path
from spqr_checks.store.store import Store, StoreWarning

warnings.simplefilter("error", StoreWarning)  # nothing here may ever look damaged
root = Path(sys.argv[1])
store = Store(root)

def maker(n, pause=0.0):
    def make(folder):
        for part in range(3):
            (folder / f"{part}.bin").write_bytes(bytes([n]) * 1000 * part)
            time.sleep(pause)
        (folder / "deep").mkdir()
        (folder / "deep" / "last.txt").write_text(str(n))
    return make

def is_whole(entry, n):
    parts = all((entry / f"{p}.bin").read_bytes() == bytes([n]) * 1000 * p for p in range(3))
    return parts and (entry / "deep" / "last.txt").read_text() == str(n)
"""


@contextmanager
def python(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script after the preamble; killed at the end if still there."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(spqr_checks.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# -- sharing --------------------------------------------------------------------------------------

BUILD_ALL = """
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def logged(n):
    def make(folder):
        os.write(log, f"{n} {os.getpid()}\\n".encode())
        maker(n, 0.002)(folder)
    return make

todo = list(range(20))
random.Random(int(sys.argv[3])).shuffle(todo)
wait = sys.argv[4] == "wait"
print("ready", flush=True)
sys.stdin.readline()
while todo:
    n = todo.pop(0)
    entry = store.build("item", {"n": n}, logged(n), wait=wait)
    if entry is None:
        assert not wait
        todo.append(n)
        time.sleep(0.005)
    else:
        assert is_whole(entry, n)
print("done", flush=True)
"""


@pytest.mark.parametrize("manner", ["wait", "claim"])
def test_processes_that_need_the_same_artefacts_make_each_exactly_once(
    manner: str, tmp_path: Path
) -> None:
    log, root = tmp_path / "log", tmp_path / "store"
    with (
        python(BUILD_ALL, root, log, 0, manner) as a,
        python(BUILD_ALL, root, log, 1, manner) as b,
        python(BUILD_ALL, root, log, 0, manner) as c,  # goes the same way as the first
        python(BUILD_ALL, root, log, 2, manner) as d,
    ):
        processes = [a, b, c, d]
        assert [line(process) for process in processes] == ["ready"] * 4
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [line(process) for process in processes] == ["done"] * 4
    made = [entry.split() for entry in log.read_text().splitlines()]
    assert Counter(n for n, _ in made) == {str(n): 1 for n in range(20)}
    assert len({pid for _, pid in made}) > 1
    store = Store(root)
    assert store.verify() == []
    assert store.usage()["item"][0] == 20
    assert set(files(root)) == {"item", "leases", "tmp"}
    assert files(root / "tmp") == []


# -- killing --------------------------------------------------------------------------------------

HOLD = """
def make(folder):
    (folder / "half").write_text("half")
    print("making", flush=True)
    time.sleep(1000)

store.build("item", {"n": 0}, make, label="the first")
"""


def test_a_killed_holder_blocks_nobody_and_its_draft_is_removed_but_not_while_it_lives(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    got: list[Path | None] = []

    def make(folder: Path) -> None:
        (folder / "whole").write_text("whole")

    def wait_for_it() -> None:
        got.append(store.build("item", {"n": 0}, make))

    with python(HOLD, tmp_path) as process:
        assert line(process) == "making"
        assert store.build("item", {"n": 0}, make, wait=False) is None
        (lease,) = store.leases_held()
        assert (lease["kind"], lease["label"]) == ("item", "the first")
        assert (lease["pid"], lease["key"]) == (process.pid, entry_key("item", {"n": 0}))
        assert store.build("item", {"n": 1}, make) is not None
        (draft,) = (tmp_path / "tmp").iterdir()
        assert files(draft) == ["half"]
        waiting = threading.Thread(target=wait_for_it, daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        process.kill()
        waiting.join(60)
    assert got == [store.path("item", {"n": 0})]
    assert got[0] is not None
    assert files(got[0]) == ["manifest.json", "recipe.json", "whole"]
    assert files(tmp_path / "tmp") == []
    assert store.leases_held() == []


def test_what_a_killed_holder_left_is_removed_by_a_build_of_something_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with python(HOLD, tmp_path) as process:
        assert line(process) == "making"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(files(tmp_path / "tmp")) == 1
    note = tmp_path / "leases" / f"{entry_key('item', {'n': 0})}.json"
    assert note.exists()
    assert store.leases_held() == []
    assert not note.exists()
    store.build("item", {"n": 1}, lambda folder: (folder / "x").touch())
    assert files(tmp_path / "tmp") == []


KILL_AT_EVERY_STEP = """
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "os.listdir"}

def die_at(step):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event in EVENTS:
            count += 1
            if count > step:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(1000)  # the signal may take another thread first
    sys.addaudithook(hook)

found = []
survived = False
while not survived:
    store = Store(root / str(len(found)))
    child = os.fork()
    if child == 0:
        die_at(len(found))
        store.build("item", {"n": 7}, maker(7), label="doomed")
        os._exit(0)
    survived = os.waitpid(child, 0)[1] == 0
    entry = store.path("item", {"n": 7})
    assert entry is None or is_whole(entry, 7)
    assert not (store.root / "quarantine").exists()
    found.append(entry is not None)
    entry = store.build("item", {"n": 7}, maker(7))
    assert is_whole(entry, 7) and store.verify() == []
    store.build("item", {"n": 8}, maker(8))
    assert os.listdir(store.root / "tmp") == [], os.listdir(store.root / "tmp")
    assert store.leases_held() == []
    assert not list((store.root / "leases").glob("*.json"))
print(json.dumps(found))
"""


def test_a_build_killed_at_any_step_leaves_nothing_or_the_whole_entry(tmp_path: Path) -> None:
    """A child dies at its first access to the file system, the next at its second, and so on."""
    with python(KILL_AT_EVERY_STEP, tmp_path) as process:
        found = json.loads(line(process))
        assert process.wait() == 0
    published = found.index(True)
    assert published > 20
    assert found == [False] * published + [True] * (len(found) - published)
    assert len(found) > published + 1  # some died between publishing and returning


KILL_AT_RANDOM = """
def build_until_killed(wait):
    n = 0
    while True:
        store.build("item", {"n": n}, maker(n % 256, 0.001), wait=wait)
        n += 1

chance = random.Random(int(sys.argv[2]))
for turn in range(10):
    children = []
    for wait in (True, True, False):
        child = os.fork()
        if child == 0:
            build_until_killed(wait)
        children.append(child)
    time.sleep(chance.uniform(0.01, 0.3))
    for child in children:
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    finished = store.usage().get("item", (0, 0))[0]
    for n in range(finished):
        entry = store.path("item", {"n": n})
        assert entry is None or is_whole(entry, n % 256)
total = finished + 10
for n in range(total):
    assert is_whole(store.build("item", {"n": n}, maker(n % 256)), n % 256)
print(json.dumps([finished, total]), flush=True)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_after_kills_at_random_moments_a_last_run_completes(seed: int, tmp_path: Path) -> None:
    with python(KILL_AT_RANDOM, tmp_path, seed) as process:
        finished, total = json.loads(line(process))
        assert process.wait() == 0
    assert finished > 0
    store = Store(tmp_path)
    assert store.verify() == []
    assert store.usage()["item"][0] == total
    assert store.leases_held() == []
    assert set(files(tmp_path)) == {"item", "leases", "tmp"}
    assert files(tmp_path / "tmp") == []
    assert all(name.endswith(".lock") for name in files(tmp_path / "leases"))
