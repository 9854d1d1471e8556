"""The store in one process: keys, building, damage, upkeep, bad folders."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spqr_checks import manifest
from spqr_checks.errors import UserError
from spqr_checks.store import Store, StoreWarning, entry_key

FILES = {"weights.bin": b"w" * 700, "adapter.json": b"{}", "unet/config.json": b'{"a": 1}\n'}
RECIPE: dict[str, Any] = {
    "method": "esd",
    "seed": 0,
    "steps": [1, 2.5],
    "of": {"base": "abc", "rank": None},
}


def writing(files: dict[str, bytes]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return make


def refuse(folder: Path) -> None:
    raise AssertionError("nothing should have been made")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if not f.is_dir()}


def built(store: Store, recipe: dict[str, Any] = RECIPE, kind: str = "state") -> Path:
    entry = store.build(kind, recipe, writing(FILES))
    assert entry is not None
    return entry


@contextmanager
def fresh_store() -> Iterator[Store]:
    """For hypothesis, which runs many examples in one test function."""
    with tempfile.TemporaryDirectory() as folder:
        yield Store(Path(folder) / "store")


@pytest.fixture(autouse=True, scope="module")
def _no_disk() -> Iterator[None]:
    """Waiting for the disk is most of a build; tests with real processes do wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


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
    assert store.relative(entry / "weights.bin") == f"state/{key[:2]}/{key}/weights.bin"
    with pytest.raises(ValueError, match="subpath"):
        store.relative(store.root.parent)


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


# -- damage ---------------------------------------------------------------------------------------


def damage(entry: Path, data: st.DataObject) -> None:
    """Change an entry in some way at some place."""
    name = data.draw(st.sampled_from(sorted(contents(entry))), label="file")
    content = bytearray((entry / name).read_bytes())
    ways = ["flip", "truncate", "append", "remove", "extra", "rename", "link", "folder"]
    way = data.draw(st.sampled_from(ways), label="way")
    if way == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        (entry / name).write_bytes(content)
    elif way == "truncate":
        (entry / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif way == "append":
        (entry / name).write_bytes(content + data.draw(st.binary(min_size=1, max_size=3)))
    elif way == "remove":
        (entry / name).unlink()
    elif way == "extra":
        (entry / name).with_name("extra").write_bytes(data.draw(st.binary(max_size=3)))
    elif way == "rename":
        (entry / name).rename((entry / name).with_name("other"))
    elif way == "link":
        (entry / name).rename(entry.parent / "moved")
        (entry / name).symlink_to(entry.parent / "moved")
    elif way == "folder":
        (entry / name).unlink()
        (entry / name).mkdir()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_any_damage_is_noticed_quarantined_and_rebuilt_alike(
    data: st.DataObject, same_process: bool
) -> None:
    with fresh_store() as store:
        entry = built(store)
        before = contents(entry)
        neighbour = built(store, {"other": 1})
        damage(entry, data)
        damaged = contents(entry)
        if not same_process:
            manifest.forget()
        with pytest.warns(StoreWarning, match=entry.name) as warned:
            assert store.path("state", RECIPE) is None
        assert len(warned) == 1
        (away,) = (store.root / "quarantine").iterdir()
        assert contents(away) == damaged
        assert not entry.exists()
        assert built(store) == entry
        assert contents(entry) == before
        assert store.path("state", {"other": 1}) == neighbour


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_building_meets_damage_as_reading_does(data: st.DataObject) -> None:
    with fresh_store() as store:
        entry = built(store)
        before = contents(entry)
        damage(entry, data)
        manifest.forget()
        with pytest.warns(StoreWarning, match="will be rebuilt"):
            assert built(store) == entry
        assert contents(entry) == before


def test_damage_that_keeps_size_and_times_is_found_by_the_next_process(store: Store) -> None:
    entry = built(store)
    weights = entry / "weights.bin"
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    with weights.open("r+b") as file:
        file.write(b"x")
    os.utime(weights, ns=times)
    manifest.forget()
    with pytest.warns(StoreWarning, match=r"weights\.bin"):
        assert store.path("state", RECIPE) is None


def test_an_entry_in_the_place_of_another_is_damage(store: Store) -> None:
    entry, other = built(store), built(store, {"other": 1})
    shutil.rmtree(entry)
    shutil.copytree(other, entry)
    with pytest.warns(StoreWarning, match="another entry"):
        assert store.path("state", RECIPE) is None


def test_an_empty_folder_or_a_file_in_the_place_of_an_entry_is_damage(store: Store) -> None:
    entry = built(store)
    for put in (entry.mkdir, entry.touch):
        shutil.rmtree(entry)
        put()
        with pytest.warns(StoreWarning, match="will be rebuilt"):
            assert built(store) == entry


def test_repeated_damage_never_overwrites_the_quarantine(store: Store) -> None:
    for _ in range(3):
        (built(store) / "weights.bin").unlink()
        with pytest.warns(StoreWarning, match="damaged"):
            assert store.path("state", RECIPE) is None
    assert store.usage()["quarantine"][0] == 3


def test_damage_is_not_touched_while_somebody_else_holds_the_lease(store: Store) -> None:
    """He is rebuilding it already; what lies there after a moment may be sound."""
    entry = built(store)
    (entry / "weights.bin").unlink()
    with (store.root / "leases" / f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.path("state", RECIPE) is None
        assert store.build("state", RECIPE, refuse, wait=False) is None
        assert entry.exists()
    with pytest.warns(StoreWarning, match="damaged"):
        assert store.path("state", RECIPE) is None
    assert not entry.exists()


def test_files_are_hashed_once_per_process_until_they_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    hashed = []
    hashing = manifest._written_anew

    def counting(entry: Path, *args: Any) -> bytes:
        hashed.append(entry)
        return hashing(entry, *args)

    monkeypatch.setattr(manifest, "_written_anew", counting)
    for _ in range(3):
        assert store.path("state", RECIPE) == entry
    assert hashed == []  # the builder has just hashed them
    manifest.forget()
    for _ in range(3):
        assert Store(store.root).path("state", RECIPE) == entry
    assert hashed == [entry]
    os.utime(entry / "weights.bin", ns=(0, 0))
    assert store.path("state", RECIPE) == entry
    assert hashed == [entry, entry]


def test_trouble_that_says_nothing_about_the_content_quarantines_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    manifest.forget()

    def too_many(*args: Any) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "_written_anew", too_many)
        with pytest.raises(OSError, match="Too many open files"):
            store.path("state", RECIPE)
    assert store.path("state", RECIPE) == entry


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


# -- bad folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_store_in_the_place_of_a_file_is_a_users_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    store = Store(tmp_path / place)
    assert store.path("state", RECIPE) is None
    uses: list[Callable[[], object]] = [store.check, lambda: store.build("state", RECIPE, refuse)]
    for use in uses:
        with pytest.raises(UserError, match="must be a folder.*choose another") as caught:
            use()
        assert str(tmp_path / place) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"


def forbids(folder: Path) -> bool:
    """Root is allowed everything."""
    return not os.access(folder, os.W_OK)


def test_a_folder_without_write_permission_is_a_users_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if not forbids(tmp_path):
            pytest.skip("permissions do not bind this user")
        store = Store(tmp_path / "store")
        uses: list[Callable[[], object]] = [store.check, lambda: built(store)]
        for use in uses:
            with pytest.raises(UserError, match="permissions or choose another"):
                use()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_serves_what_is_sound_and_never_what_is_damaged(
    code: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, damaged = built(store), built(store, {"other": 1})
    (damaged / "weights.bin").unlink()

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", forbidden)
    assert store.build("state", RECIPE, refuse) == entry
    with pytest.warns(StoreWarning, match="not used") as warned:
        found = [store.path("state", {"other": 1}) for _ in range(3)]
    assert found == [None] * 3
    assert len(warned) == 1
    with pytest.raises(UserError, match="permissions or choose another"):
        store.build("state", {"other": 1}, refuse)
    with pytest.raises(UserError, match="permissions or choose another"):
        store.remove("state", entry.name)


def test_a_store_that_may_not_be_read_is_a_users_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    manifest.forget()

    def forbidden(*args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UserError, match="cannot be read"):
        store.path("state", RECIPE)
    assert entry.exists()


def full_disk(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"w")
    with open("/dev/full", "wb", buffering=0) as device:
        device.write(b"x")


def full_disk_in_words(folder: Path) -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("make", [full_disk, full_disk_in_words])
def test_a_full_disk_is_a_users_error_with_a_remedy(
    make: Callable[[Path], None], store: Store
) -> None:
    with pytest.raises(UserError, match="no space left.*free some") as caught:
        store.build("state", RECIPE, make)
    assert caught.value.__cause__ is not None
    assert store.path("state", RECIPE) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_a_disk_that_fills_while_the_entry_is_finished_publishes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            built(store)
    assert store.path("state", RECIPE) is None
    assert built(store).exists()


def test_a_file_system_without_locks_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks by existence would outlive a killed process and stop every later run."""

    def missing(*args: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="no file locks.*local disk"):
            store.build("state", RECIPE, refuse)


def test_check_passes_for_a_folder_yet_to_be_made_and_makes_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").check()
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_does_not_move_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    entry = built(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.path("state", RECIPE) == entry
    assert store.relative(entry) == f"state/{entry.name[:2]}/{entry.name}"
