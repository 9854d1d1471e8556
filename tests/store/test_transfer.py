"""Stores are joined: what arrives is checked, nothing is overwritten, a killed merge goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from stores import FILES, RECIPE, built, contents, refuse, writing

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.store import manifest, timings
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing
from spqr_checks.store.transfer import merge


@pytest.fixture
def two(tmp_path: Path) -> list[Store]:
    """Two stores with an entry of their own each and one that both have."""
    stores = [Store(tmp_path / name) for name in ("a", "b")]
    for n, store in enumerate(stores):
        built(store, {"n": n})
        built(store, {"n": "both"})
    return stores


def roots(stores: list[Store]) -> list[Path]:
    return [store.root for store in stores]


def test_every_entry_arrives_with_the_same_bytes_and_is_not_made_again(
    two: list[Store], store: Store
) -> None:
    done = merge(roots(two), store.root)
    assert (done.taken, done.there, done.clean) == (3, 1, True)
    for n in (0, 1, "both"):
        found = store.build("state", {"n": n}, refuse)
        assert found is not None
        assert contents(found) == contents(built(two[0] if n == 0 else two[1], {"n": n}))
    assert store.verify() == []
    again = merge(roots(two), store.root)
    assert (again.taken, again.there, again.clean) == (0, 4, True)


@pytest.mark.parametrize("name", [*FILES, "recipe.json", "manifest.json"])
def test_an_entry_with_a_flipped_byte_is_left_out_by_name(
    name: str, two: list[Store], store: Store
) -> None:
    entry = built(two[0], {"n": 0})
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 1
    (entry / name).write_bytes(content)
    done = merge(roots(two), store.root)
    assert done.taken == 2
    (said,) = done.damaged
    assert said.startswith(f"{entry}: ")
    assert store.path("state", {"n": 0}) is None
    assert list((store.root / "tmp").iterdir()) == []
    manifest.forget()
    assert merge(roots(two), store.root).damaged == [said]


def test_an_entry_in_the_place_of_another_is_left_out(two: list[Store], store: Store) -> None:
    """Its manifest may even have been written for that place: the recipe decides."""
    entry, key = built(two[0], {"n": 0}), entry_key("state", {"n": "other"})
    place = two[0].root / "state" / key[:2] / key
    place.parent.mkdir(exist_ok=True)
    shutil.copytree(entry, place)
    said = json.loads((place / "manifest.json").read_text())
    text = json.dumps(said | {"key": key}, sort_keys=True) + "\n"
    (place / "manifest.json").write_text(text)
    done = merge([two[0].root], store.root)
    assert done.taken == 2
    assert done.damaged == [f"{place}: recipe.json is not the one of this key"]


def test_a_link_in_an_entry_is_not_followed(two: list[Store], store: Store) -> None:
    entry = built(two[0], {"n": 0})
    (entry / "weights.bin").unlink()
    (entry / "weights.bin").symlink_to("/etc/hostname")
    done = merge(roots(two), store.root)
    assert len(done.damaged) == 1
    assert "neither a file nor a folder" in done.damaged[0]


def test_what_is_there_stays_and_other_bytes_of_it_are_named(
    two: list[Store], store: Store
) -> None:
    mine = store.build("state", {"n": 0}, writing({"x": b"mine"}))
    assert mine is not None
    done = merge(roots(two), store.root)
    assert done.differing == [str(built(two[0], {"n": 0}))]
    assert not done.clean
    assert (mine / "x").read_bytes() == b"mine"


def test_a_damaged_entry_of_the_target_is_replaced(two: list[Store], store: Store) -> None:
    merge(roots(two), store.root)
    entry = store.path("state", {"n": 0})
    assert entry is not None
    (entry / "weights.bin").write_bytes(b"broken")
    with pytest.warns(match="damaged"):
        assert merge(roots(two), store.root).taken == 1
    assert contents(entry) == contents(built(two[0], {"n": 0}))


def test_timings_come_along_and_only_if_they_are_some(two: list[Store], store: Store) -> None:
    timing = Timing(name="images", label="x", seconds=2.0)
    timings.record(two[0].root, "state", entry_key("state", {"n": 0}), timing)
    other = two[1].root / "timings" / "state" / "ab" / f"{'ab' * 16}.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    merge(roots(two), store.root)
    assert timings.read(store.root) == ([timing], [])


def test_what_is_no_store_and_the_target_itself_are_refused(two: list[Store]) -> None:
    with pytest.raises(UserError, match="no store is there"):
        merge([two[0].root / "none"], two[1].root)
    with pytest.raises(UserError, match="merge into"):
        merge(roots(two), two[0].root)


def test_the_command_says_what_came_and_its_exit_code_what_did_not(
    two: list[Store], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["merge", *map(str, roots(two)), "--into", str(store.root)]
    assert main(given) == 0
    assert "3 entries brought, 1 were there already" in capsys.readouterr().out
    entry = built(two[0], {"n": 0})
    (entry / "weights.bin").write_bytes(b"broken")
    assert main(given) == 1
    assert f"damaged, left out: {entry}: " in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["../x", "/x", "a//b", "a/../b", ".", "a\\b", "a\0", ""])
def test_names_that_lead_out_of_an_entry_are_refused(bad: str) -> None:
    key = entry_key("state", RECIPE)
    files = {bad: {"size": 1, "sha256": "0" * 64}}
    content = json.dumps({"kind": "state", "key": key, "files": files}).encode()
    with pytest.raises(DamagedError):
        manifest.listed(content, "state", key)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills")
def test_a_merge_killed_at_any_step_is_completed_by_the_next(
    two: list[Store], tmp_path: Path
) -> None:
    """A child dies at its first access to the target's files, the next at its second, and so on."""
    events = {"open", "os.rename", "os.mkdir", "os.scandir"}
    step, survived = 0, False
    while not survived:
        into = tmp_path / "into" / str(step)
        child = os.fork()
        if child == 0:
            left = [step]

            def hook(event: str, given: tuple[object, ...], left: list[int] = left) -> None:
                if event in events:
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(9)

            import sys

            sys.addaudithook(hook)
            merge(roots(two), into)
            os._exit(0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        found = Store(into)
        assert found.verify() == []  # whole, or not there
        done = merge(roots(two), into)
        assert done.clean
        assert found.usage()["state"][0] == 3
        assert list((into / "tmp").iterdir()) == []
        step += 3
    assert step > 60
