"""The store in one process: keys, building, upkeep."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stores import FILES, RECIPE, built, contents, refuse, writing

from spqr_checks.store import manifest
from spqr_checks.store.store import Store, StoreWarning, entry_key

# -- keys -----------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
finite = scalars.filter(lambda x: not isinstance(x, float) or abs(x) != float("inf"))
json_values = st.recursive(
    finite,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
recipes = st.dictionaries(st.text(), json_values, max_size=5)


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        random.shuffle(names)
        return {name: shuffled(value[name], random) for name in names}
    return [shuffled(v, random) for v in value] if isinstance(value, list) else value


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(recipes, st.randoms(use_true_random=False))
def test_the_order_of_a_recipes_keys_does_not_change_its_key(recipe: Any, random: Any) -> None:
    assert entry_key("state", shuffled(recipe, random)) == entry_key("state", recipe)


@settings(max_examples=60, deadline=None)
@given(recipes.filter(bool), st.data())
def test_any_changed_value_changes_the_key(recipe: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(recipe)))
    value = data.draw(json_values)
    assume(json.dumps(value, sort_keys=True) != json.dumps(recipe[name], sort_keys=True))
    assert entry_key("state", {**recipe, name: value}) != entry_key("state", recipe)


@settings(max_examples=60, deadline=None)
@given(recipes.filter(bool), st.data())
def test_a_missing_or_renamed_field_changes_the_key(recipe: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(recipe)))
    other = data.draw(st.text().filter(lambda text: text not in recipe))
    rest = {n: v for n, v in recipe.items() if n != name}
    keys = {entry_key("state", r) for r in (recipe, rest, {**rest, other: recipe[name]})}
    assert len(keys) == 3


def test_equal_recipes_of_different_kinds_have_different_keys() -> None:
    assert entry_key("images", RECIPE) != entry_key("verdicts", RECIPE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_in_recipes(bad: float, store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        entry_key("state", {"deep": [{"x": bad}]})
    with pytest.raises(ValueError, match="JSON"):
        store.build("state", {"x": bad}, refuse)
    assert not store.root.exists()


@pytest.mark.parametrize("kind", ["", "tmp", "leases", "quarantine", "../x", "a/b", "A", ".x"])
def test_a_kind_must_be_a_plain_folder_name_that_the_store_does_not_use(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        entry_key(kind, {})


# -- building and reading -------------------------------------------------------------------------


def test_reading_an_empty_store_finds_nothing_and_writes_nothing(store: Store) -> None:
    assert store.path("state", RECIPE) is None
    assert store.usage() == {}
    assert store.verify() == []
    assert store.leases_held() == []
    assert not store.remove("state", entry_key("state", RECIPE))
    assert not store.root.exists()


def test_an_entry_lies_under_its_key_and_holds_what_was_made(store: Store) -> None:
    entry = built(store)
    key = entry_key("state", RECIPE)
    assert entry == store.root / "state" / key[:2] / key
    assert {n: c for n, c in contents(entry).items() if n in FILES} == FILES
    assert set(contents(entry)) == {*FILES, "recipe.json", "manifest.json"}
    assert store.path("state", RECIPE) == entry
    assert store.place("state", key) == f"state/{key[:2]}/{key}"


def test_the_manifest_lists_size_and_sha256_as_other_tools_compute_it(store: Store) -> None:
    files = json.loads((built(store) / "manifest.json").read_text())["files"]
    assert set(files) == {*FILES, "recipe.json"}
    assert files["adapter.json"] == {
        "size": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }


def test_recipe_json_says_what_the_entry_is_and_leads_back_to_its_key(store: Store) -> None:
    entry = built(store)
    assert json.loads((entry / "recipe.json").read_text()) == {"kind": "state", "recipe": RECIPE}


def test_what_is_there_is_not_made_again(store: Store) -> None:
    entry = built(store)
    assert store.build("state", RECIPE, refuse) == entry
    assert Store(store.root).build("state", RECIPE, refuse) == entry
    manifest.forget()
    assert store.build("state", dict(reversed(RECIPE.items())), refuse) == entry


def test_after_a_build_nothing_but_the_entry_and_an_empty_lock_file_is_left(store: Store) -> None:
    entry = built(store)
    others = {
        n: c for n, c in contents(store.root).items() if not (store.root / n).is_relative_to(entry)
    }
    assert others == {f"leases/{entry.name}.lock": b""}
    assert list((store.root / "tmp").iterdir()) == []


def test_a_published_entry_has_the_usual_permissions(store: Store, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE(built(store).stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize(
    "error", [RuntimeError("loss is NaN"), KeyboardInterrupt(), OSError(2, "x")]
)
def test_a_maker_that_raises_is_heard_and_leaves_nothing(
    error: BaseException, store: Store
) -> None:
    def make(folder: Path) -> None:
        writing(FILES)(folder)
        raise error

    with pytest.raises(type(error)) as caught:
        store.build("state", RECIPE, make)
    assert caught.value is error
    assert store.path("state", RECIPE) is None
    assert list((store.root / "tmp").iterdir()) == []
    assert store.leases_held() == []
    assert built(store).is_dir()


def test_a_maker_that_leaves_no_files_links_or_the_stores_own_names_is_refused(
    store: Store,
) -> None:
    def link(folder: Path) -> None:
        (folder / "weights.bin").symlink_to("/dev/null")

    makers = [lambda folder: None, link, lambda folder: (folder / "empty").mkdir()]
    makers += [writing({"a": b"", name: b"{}"}) for name in ("recipe.json", "manifest.json")]
    for make in makers:
        with pytest.raises(ValueError, match="artefact"):
            store.build("state", RECIPE, make)
        assert store.path("state", RECIPE) is None


def test_a_maker_that_is_still_writing_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer left behind by the maker would change the entry after it was hashed."""
    hashing = manifest._written_anew

    def hash_then_write(entry: Path, *args: Any) -> bytes:
        text = hashing(entry, *args)
        (entry / "weights.bin").write_bytes(b"late")
        return text

    monkeypatch.setattr(manifest, "_written_anew", hash_then_write)
    with pytest.raises(ValueError, match="still being written"):
        built(store)
    assert store.path("state", RECIPE) is None


def test_makers_may_build_other_entries_of_the_same_store(store: Store) -> None:
    def make(folder: Path) -> None:
        base = built(store, {"base": 1})
        (folder / "tuned.bin").write_bytes((base / "weights.bin").read_bytes())
        assert {said["label"] for said in store.leases_held()} == {"tuned"}

    entry = store.build("state", {"tuned": 1}, make, label="tuned")
    assert entry is not None
    assert (entry / "tuned.bin").read_bytes() == FILES["weights.bin"]


def test_while_one_thread_builds_another_gets_none_or_waits_for_the_same_entry(
    store: Store,
) -> None:
    started, go_on, got = threading.Event(), threading.Event(), []

    def make(folder: Path) -> None:
        started.set()
        assert go_on.wait(60)
        writing(FILES)(folder)

    def wait_for_it() -> None:
        got.append(store.build("state", RECIPE, refuse))

    first = threading.Thread(target=store.build, args=("state", RECIPE, make))
    second = threading.Thread(target=wait_for_it)
    first.start()
    assert started.wait(60)
    assert store.build("state", RECIPE, refuse, wait=False) is None
    assert not store.remove("state", entry_key("state", RECIPE))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join(60)
    second.join(60)
    assert got == [store.path("state", RECIPE)]
    assert got[0] is not None


def test_what_is_being_built_can_be_seen(store: Store) -> None:
    before, seen = time.time(), []

    def make(folder: Path) -> None:
        seen.extend(store.leases_held())
        writing(FILES)(folder)

    store.build("state", RECIPE, make, label="esd on base")
    lease: dict[str, Any] = dict(*seen)
    assert before <= lease.pop("started") <= time.time()
    assert lease == {
        "key": entry_key("state", RECIPE),
        "kind": "state",
        "label": "esd on base",
        "pid": os.getpid(),
    }
    assert store.leases_held() == []


def test_everything_is_on_the_disk_before_the_entry_gets_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a loss of power could leave the name without the bytes."""
    synced: dict[int, tuple[int, int]] = {}
    renames = []
    fsync, rename = os.fsync, os.rename

    def recording_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced[status.st_ino] = (status.st_size, status.st_mtime_ns)

    def checking_rename(source: Path, target: Path) -> None:
        for path in [source, *Path(source).rglob("*")]:
            status = path.stat()
            assert synced.get(status.st_ino) == (status.st_size, status.st_mtime_ns), path
        rename(source, target)
        synced.clear()
        renames.append(Path(target))

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", checking_rename)
    entry = built(store)
    assert renames == [entry]
    parents = {entry.parent, entry.parent.parent, store.root}
    assert {folder.stat().st_ino for folder in parents} <= set(synced)


def test_an_entry_that_arrives_from_elsewhere_while_it_is_made_is_kept(
    store: Store, tmp_path: Path
) -> None:
    elsewhere = built(Store(tmp_path / "elsewhere"))

    def make(folder: Path) -> None:
        writing(FILES)(folder)
        shutil.copytree(elsewhere, store.root / store_path)

    store_path = elsewhere.relative_to(tmp_path / "elsewhere")
    entry = store.build("state", RECIPE, make)
    assert entry == store.root / store_path
    assert list((store.root / "tmp").iterdir()) == []


# -- upkeep ---------------------------------------------------------------------------------------


def test_usage_counts_entries_and_bytes_of_each_kind(store: Store) -> None:
    entries = [built(store, {"n": n}) for n in range(3)]
    built(store, kind="images")
    usage = store.usage()
    assert usage["state"] == (3, sum(len(c) for e in entries for c in contents(e).values()))
    assert usage["images"][0] == 1
    assert set(usage) == {"state", "images"}


def test_verify_hashes_everything_again_and_names_what_is_damaged(store: Store) -> None:
    entries = [built(store, {"n": n}) for n in range(4)]
    assert store.verify() == []
    times = (entries[2] / "weights.bin").stat()
    (entries[2] / "weights.bin").write_bytes(b"x" * 700)
    os.utime(entries[2] / "weights.bin", ns=(times.st_atime_ns, times.st_mtime_ns))
    (entries[1] / "extra").touch()
    assert sorted(store.verify()) == sorted(e.name for e in entries[1:3])
    assert all(e.exists() for e in entries)


def test_a_removed_entry_is_gone_and_can_be_built_again(store: Store) -> None:
    entry, other = built(store), built(store, {"other": 1})
    assert store.remove("state", entry.name)
    assert not entry.exists()
    assert store.path("state", RECIPE) is None
    assert not store.remove("state", entry.name)
    assert list((store.root / "tmp").iterdir()) == []
    assert store.path("state", {"other": 1}) == other
    assert built(store) == entry


@pytest.mark.parametrize(
    ("kind", "key"), [("../x", "a" * 32), ("state", "../.."), ("tmp", "a" * 32)]
)
def test_only_entries_can_be_removed(kind: str, key: str, store: Store) -> None:
    with pytest.raises(ValueError, match="cannot be an entry"):
        store.remove(kind, key)


def test_prune_removes_the_given_kinds_and_nothing_else(store: Store) -> None:
    for n in range(3):
        built(store, {"n": n}, "images")
    kept = built(store)
    (built(store, {"n": 0}, "verdicts") / "weights.bin").unlink()
    with pytest.warns(StoreWarning, match="damaged"):
        store.path("verdicts", {"n": 0})
    assert store.prune(["images"]) == 3
    assert set(store.usage()) == {"state", "quarantine"}
    assert store.prune(["quarantine", "unknown"]) == 1
    assert store.usage() == {"state": (1, sum(map(len, contents(kept).values())))}
