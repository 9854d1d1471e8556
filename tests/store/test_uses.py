"""`spqr store gc`: what no recent run has used goes, and never what a run at work needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import built

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.store import leases
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.uses import Keep, Uses, find_garbage

DAY = 86_400.0
NOW = float(int(time.time()))  # whole seconds, which no rounding moves


def made_ago(store: Store, name: str, days: float) -> Path:
    """An entry of that age."""
    entry = built(store, {"name": name}, "images")
    os.utime(entry, (NOW - days * DAY,) * 2)
    return entry


def run_ago(store: Store, days: float, *names: str) -> None:
    """A run that ended so long ago, and what it used."""
    uses = Uses(store.root, NOW - days * DAY)
    for name in names:
        uses.note("images", entry_key("images", {"name": name}))
    uses.close()
    for path in (store.root / "uses").glob(f"{round((NOW - days * DAY) * 1e6)}-*"):
        os.utime(path, (NOW - days * DAY,) * 2)


def names_left(store: Store, *names: str) -> set[str]:
    return {n for n in names if store.holds("images", entry_key("images", {"name": n}))}


ALL = ("old", "used", "lately", "new")


@pytest.fixture
def aged(store: Store) -> Store:
    """Entries made 90 days ago, one of them used 50 and one 10 days ago; and one made today."""
    for name in ALL[:3]:
        made_ago(store, name, 90)
    run_ago(store, 50, "used")
    run_ago(store, 10, "lately")
    made_ago(store, "new", 0)
    return store


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("100d", {"old", "used", "lately", "new"}),
        ("60d", {"used", "lately", "new"}),
        ("30d", {"lately", "new"}),
        ("1", {"lately", "new"}),
        ("2", {"used", "lately", "new"}),
    ],
)
def test_what_is_kept_was_used_or_made_lately(
    aged: Store, keep: str, left: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["store", "gc", "--store", str(aged.root), "--keep", keep]
    gone = len(ALL) - len(left)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"{gone} entries, " in said
    assert ("nothing was removed; --yes removes them" in said) is (gone > 0)
    assert names_left(aged, *ALL) == set(ALL)
    assert main([*command, "--yes"]) == 0
    assert (
        capsys.readouterr().out
        == said.replace("nothing was removed; --yes removes them\n", "")
        + f"{gone} entries removed\n"
    )
    assert names_left(aged, *ALL) == left
    assert main([*command, "--yes"]) == 0
    assert "0 entries removed" in capsys.readouterr().out


@pytest.mark.parametrize("keep", ["0", "-1", "d", "30 d", "1e3d", "all", "nan"])
def test_what_says_nothing_is_refused(
    aged: Store, keep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "gc", f"--keep={keep}", "--yes", "--store", str(aged.root)]) == 4
    assert "such as 30d" in capsys.readouterr().err
    assert names_left(aged, *ALL) == set(ALL)


def test_what_unknown_runs_may_have_used_stays(aged: Store) -> None:
    with pytest.raises(UserError, match="knows what 2 runs have used, fewer than 3"):
        find_garbage(aged, Keep.parse("3"))
    for path in (aged.root / "uses").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="knows what 0 runs have used"):
        find_garbage(aged, Keep.parse("30d"))


def test_a_run_at_work_keeps_what_it_uses_however_long_it_takes(aged: Store) -> None:
    key = entry_key("images", {"name": "old"})
    working = Uses(aged.root, NOW - 200 * DAY)
    working.note("images", key)
    for path in (aged.root / "uses").glob("*"):
        os.utime(path, (NOW - 200 * DAY,) * 2)
    garbage = find_garbage(aged, Keep.parse("30d"))
    assert names_left(aged, *ALL) - {"used", "lately"} == {"old", "new"}
    garbage.remove(aged)
    assert names_left(aged, *ALL) == {"old", "new"}
    working.close()
    find_garbage(aged, Keep.parse("30d")).remove(aged)
    assert names_left(aged, *ALL) == {"new"}
    assert not list((aged.root / "uses").iterdir())


def test_what_comes_into_use_or_is_being_made_after_the_look_stays(aged: Store) -> None:
    working = Uses(aged.root, NOW)
    working.note("images", "0" * 32)
    garbage = find_garbage(aged, Keep.parse("1d"))
    assert len(garbage.entries) == 3
    working.note("images", entry_key("images", {"name": "old"}))
    begun = Uses(aged.root, NOW + 1)
    begun.note("images", entry_key("images", {"name": "used"}))
    lately = entry_key("images", {"name": "lately"})
    with leases.lease(aged.root / "leases", lately, wait=False) as mine:
        assert mine
        assert garbage.remove(aged) == 0
    assert names_left(aged, *ALL) == set(ALL)
    working.close()
    begun.close()


@pytest.mark.slow
def test_a_killed_run_has_used_what_it_noted_and_works_no_more(aged: Store) -> None:
    code = (
        "import sys, time; from pathlib import Path; from spqr_checks.store.uses import Uses\n"
        f"uses = Uses(Path(sys.argv[1]), {NOW})\n"
        f"uses.note('images', {entry_key('images', {'name': 'old'})!r}); print(flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(aged.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert len(find_garbage(aged, Keep.parse("0d"))._working) == 1
        run.send_signal(signal.SIGKILL)
    (log,) = (aged.root / "uses").glob(f"{round(NOW * 1e6)}-*.txt")
    with log.open("a") as file:
        file.write("images/abc")  # a line that was cut off
    garbage = find_garbage(aged, Keep.parse("1"))
    assert not garbage._working
    garbage.remove(aged)
    assert names_left(aged, *ALL) == {"old", "new"}


def test_a_store_notes_what_is_asked_for_before_it_is_there(store: Store) -> None:
    asked: list[tuple[str, str]] = []
    store.used = lambda kind, key: asked.append((kind, key))
    assert store.path("images", {"n": 1}) is None
    built(store, {"n": 1}, "images")
    assert set(asked) == {("images", entry_key("images", {"n": 1}))}
    assert "uses" not in store.usage()


def test_a_folder_that_cannot_be_written_to_ends_no_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    uses = Uses(store.root, NOW)
    uses.note("images", "0" * 32)
    uses.close()
