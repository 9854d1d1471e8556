"""Stores at addresses: only what is missing travels, and is checked when it arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from stores import FILES, built, contents, refuse, writing

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.store import timings
from spqr_checks.store.remote import pull, push
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/there"
    else:
        yield "memory://there"
        fsspec.filesystem("memory").rm("/there", recursive=True)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


def blobs(address: str) -> list[str]:
    place, root = fsspec.url_to_fs(address)
    return sorted(place.find(f"{root}/files"))


def test_what_was_pushed_is_pulled_with_the_same_bytes(
    address: str, store: Store, other: Store
) -> None:
    entry = built(store)
    timing = Timing(name="images", label="x", seconds=2.0)
    timings.record(store.root, "state", entry.name, timing)
    assert push(store, address).taken == 1
    done = pull(address, other)
    assert (done.taken, done.clean) == (1, True)
    found = other.path("state", {**entry_recipe(entry)})
    assert found is not None
    assert contents(found) == contents(entry)
    assert timings.read(other.root) == ([timing], [])
    assert push(store, address).there == pull(address, other).there == 1


def entry_recipe(entry: Path) -> dict[str, Any]:
    import json

    return dict(json.loads((entry / "recipe.json").read_text())["recipe"])


def test_only_what_is_missing_travels(
    address: str, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(store, {"n": 0})
    push(store, address)
    built(store, {"n": 1})
    sent: list[str] = []
    for kind in (MemoryFileSystem, LocalFileSystem):
        real = kind.put_file

        def noted(self: Any, path: str, target: str, real: Any = real, **more: Any) -> None:
            sent.append(target)
            real(self, path, target, **more)

        monkeypatch.setattr(kind, "put_file", noted)
    assert (push(store, address).taken, len(sent)) == (1, 2)  # its recipe and its manifest
    pull(address, other)
    for n in (0, 1):
        assert other.build("state", {"n": n}, refuse) is not None


def test_a_killed_push_is_no_entry_and_the_next_goes_on_after_it(
    address: str, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(store)
    with monkeypatch.context() as patch:
        for kind in (MemoryFileSystem, LocalFileSystem):
            real = kind.put_file

            def dying(self: Any, path: str, target: str, real: Any = real, **more: Any) -> None:
                if "/entries/" in target:
                    raise ConnectionError("the line is dead")
                real(self, path, target, **more)

            patch.setattr(kind, "put_file", dying)
        with pytest.raises(UserError, match="the line is dead"):
            push(store, address)
    assert pull(address, other).taken == 0
    before = blobs(address)
    assert len(before) == len(FILES) + 1
    assert push(store, address).taken == 1
    assert blobs(address) == before
    assert pull(address, other).taken == 1


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_refused_by_name_on_arrival(
    harm: str, address: str, store: Store, other: Store
) -> None:
    built(store, {"n": 0})
    built(store, {"n": 1})
    whole = store.build("state", {"n": 2}, writing({"own.bin": b"own content"}))
    assert whole is not None
    push(store, address)
    place, _ = fsspec.url_to_fs(address)
    (blob,) = [b for b in blobs(address) if place.cat_file(b) == b"own content"]
    if harm == "gone":
        place.rm(blob)
    else:
        content = b"oWn content" if harm == "flipped" else b"own"
        place.pipe_file(blob, content)
    done = pull(address, other)
    assert done.taken == 2
    (said,) = done.damaged
    assert entry_key("state", {"n": 2}) in said
    assert harm == "gone" or said.endswith("push it with --verify")
    assert other.path("state", {"n": 2}) is None
    assert list((other.root / "tmp").iterdir()) == []
    done = push(store, address, verify=harm == "flipped")  # its size says nothing
    assert (done.taken, done.there, done.clean) == (1, 2, True)
    assert place.cat_file(blob) == b"own content"
    assert pull(address, other).taken == 1
    assert push(store, address).there == push(store, address, verify=True).there == 3


def test_a_manifest_that_names_files_elsewhere_brings_nothing(
    address: str, store: Store, other: Store
) -> None:
    entry = built(store)
    push(store, address)
    place, root = fsspec.url_to_fs(address)
    (path,) = place.find(f"{root}/entries")
    text = place.cat_file(path).replace(b"unet/config.json", b"../../../x.json")
    place.pipe_file(path, text)
    (said,) = pull(address, other).damaged
    assert "'../../../x.json' cannot be a file of an entry" in said
    assert entry.name in said
    place.pipe_file(path, b"[]")
    assert "cannot be understood" in pull(address, other).damaged[0]
    assert push(store, address).taken == 1  # in place of what is none
    assert pull(address, other).taken == 1


def test_two_pushers_of_other_bytes_leave_one_whole_entry(
    address: str, store: Store, other: Store, tmp_path: Path
) -> None:
    second = Store(tmp_path / "second")
    for n in range(6):
        for one, word in ((store, b"first"), (second, b"second")):
            one.build("state", {"n": n}, writing({"a": word, "b": word * 2}))
    errors: list[BaseException] = []

    def run(one: Store) -> None:
        try:
            push(one, address)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in (store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert pull(address, other).clean
    for n in range(6):
        found = other.path("state", {"n": n})
        assert found is not None
        assert (found / "b").read_bytes() == (found / "a").read_bytes() * 2
    named = push(store, address).differing + push(second, address).differing
    assert len(named) == 6


def test_a_damaged_entry_is_not_pushed(address: str, store: Store, other: Store) -> None:
    entry = built(store)
    (entry / "weights.bin").write_bytes(b"broken")
    assert push(store, address).damaged[0].startswith(f"{entry}: ")
    assert blobs(address) == []
    push(store, f"{address}/more")
    assert pull(f"{address}/more", other).taken == 0
    built(other, {"n": 1})
    push(other, address)  # so that there is something to clean up


def test_addresses_that_are_none_are_refused_with_a_sentence(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    built(store)
    for given, said in (
        (["push", str(store.root), "folder"], "'folder' is no address"),
        (["push", str(store.root), "zip::memory://x"], "is no address"),
        (["pull", "nowhere://x", str(store.root)], "nowhere://x: "),
        (["push", "none", "memory://x"], "no store is there"),
    ):
        assert main(["store", *given]) == 4
        assert said in capsys.readouterr().err


def test_the_commands_say_what_was_brought(
    address: str, store: Store, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    built(store)
    assert main(["store", "push", "--verify", str(store.root), address]) == 0
    assert main(["store", "pull", address, str(other.root)]) == 0
    assert capsys.readouterr().out.splitlines() == ["1 entries brought, 0 were there already"] * 2


@pytest.mark.slow
def test_a_bucket_of_an_s3_server_holds_a_store(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="needs the extra remote")
    server = pytest.importorskip("moto.server", reason="needs moto[server]")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    try:
        host, port = running.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        for n in range(12):
            built(store, {"n": n})
        assert push(store, "s3://bucket/stores/one").taken == 12
        assert push(store, "s3://bucket/stores/one").there == 12
        assert pull("s3://bucket/stores/one", other).taken == 12
        assert other.verify() == []
        found = other.path("state", {"n": 3})
        assert found is not None
        assert contents(found) == contents(built(store, {"n": 3}))
    finally:
        running.stop()
