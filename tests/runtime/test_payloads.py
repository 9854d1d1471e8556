"""What travels between machines: plain bytes, checked on arrival; files find their new place."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from strange_nodes import MadeUp
from warm import BASE_SETTINGS
from written_adapters import write_adapter

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.payloads import inputs, packed, placed, unpacked
from spqr_checks.runtime.rebuilt import RunNode
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store, entry_key

RECIPE = {"n": 1}
DYING = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
tempfile.tempdir = sys.argv[2]
from strange_nodes import MadeUp
node = MadeUp({})
print(node.store.root.parent, end="", flush=True)
os._exit(9)
"""
KEY = entry_key("things", RECIPE)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    def make(folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet" / "a.safetensors").write_bytes(b"weights")
        (folder / "000.png").write_bytes(b"image")

    made = Store(tmp_path / "there").build("things", RECIPE, make)
    assert made is not None
    return made


def test_an_entry_arrives_as_it_was(entry: Path, tmp_path: Path) -> None:
    here = Store(tmp_path / "here")
    assert packed(unpacked(packed(entry), "things", KEY, here)) == packed(entry)
    assert here.path("things", RECIPE) is not None


@pytest.mark.parametrize("name", ["unet/a.safetensors", "000.png", "recipe.json", "manifest.json"])
def test_a_flipped_byte_a_missing_file_and_an_added_one_are_noticed(
    name: str, entry: Path, tmp_path: Path
) -> None:
    payload, here = packed(entry), Store(tmp_path / "here")
    flipped = bytes([payload[name][0] ^ 1]) + payload[name][1:]
    less = {other: content for other, content in payload.items() if other != name}
    for wrong in (payload | {name: flipped}, less, payload | {"more.json": b"{}"}):
        with pytest.raises(DamagedError):
            unpacked(wrong, "things", KEY, here)
    with pytest.raises(DamagedError):
        unpacked(payload, "things", entry_key("things", {"n": 2}), here)
    assert here.path("things", RECIPE) is None


@pytest.mark.parametrize("name", ["x.pkl", "../x.json", "/x.json", "a\\x.json", 3])
def test_only_plain_files_of_known_kinds_are_taken(name: str, entry: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedError):
        unpacked(packed(entry) | {name: b"{}"}, "things", KEY, Store(tmp_path / "here"))
    with pytest.raises(DamagedError):
        unpacked([b"x"], "things", KEY, Store(tmp_path / "here"))


def test_files_that_settings_name_are_found_again_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sum").touch()  # no word is taken for a file
    for place in ("base/unet/w.safetensors", "own.csv", "data/1.png", "judge/config.json"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(place)
    given = {
        "preset": "miniature",
        "base": str(tmp_path / "base"),
        "candidate": "base",  # the word, though there is such a folder
        "prompts": "miniature,own=own.csv",
        "datasets": "data,self:own.csv,miniature:stripes",
        "judge": "any(classifier=judge,classifier=miniature:classifier)",
        "method": {"uce": {"pairs": str(tmp_path / "own.csv"), "steps": 3}},
        "attack": {"replay": {"prompts": "own.csv", "images": "data", "rule": "sum"}},
        "device": "cuda:3",
        "judge_device": "cuda:1",
    }
    settings = load_settings(tmp_path, given)
    told, files = inputs(settings)
    assert str(tmp_path) not in str({k: v for k, v in told.items() if k not in ("store", "report")})
    there = tmp_path / "node"
    for one in files:
        (there / one.place).parent.mkdir(parents=True, exist_ok=True)
        (there / one.place).write_bytes(b"".join(one.chunks()))
    found = placed(told, there, tmp_path / "store")
    assert (Path(found.base) / "unet" / "w.safetensors").read_text() == "base/unet/w.safetensors"
    assert found.candidate == "base"
    packaged, own = found.prompts
    assert (packaged, own.partition("=")[0]) == ("miniature", "own")
    assert Path(own.partition("=")[2]).read_text() == "own.csv"
    data, drawn, rendered = found.datasets
    assert (Path(data).name, rendered) == ("data", "miniature:stripes")  # labels keep their names
    assert Path(drawn.removeprefix("self:")).read_text() == "own.csv"
    first, second = found.judge[4:-1].split(",")
    assert (Path(first.partition("=")[2]) / "config.json").read_text() == "judge/config.json"
    assert second == "classifier=miniature:classifier"
    assert Path(found.method["uce"]["pairs"]).read_text() == "own.csv"
    replayed = found.attack["replay"]
    assert Path(replayed["prompts"]).read_text() == "own.csv"
    assert (Path(replayed["images"]).parents[1], replayed["rule"]) == (there, "sum")
    assert (found.device, found.judge_device) == ("cuda", "cuda")  # each node sees its own only
    assert found.store == str(tmp_path / "store")
    same = settings.measured()
    assert {k: v for k, v in found.measured().items() if k in ("sampler", "seeds", "profile")} == {
        k: v for k, v in same.items() if k in ("sampler", "seeds", "profile")
    }


def test_a_folder_of_a_killed_node_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run(
        [sys.executable, "-c", DYING, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert Path(dead.stdout).is_dir(), dead.stderr
    (tmp_path / "spqr-node-file").touch()
    first = MadeUp({})
    second = MadeUp({})
    left = {path.name for path in tmp_path.glob("spqr-node-*") if path.is_dir()}
    assert left == {first.store.root.parent.name, second.store.root.parent.name}
    first.close()
    second.close()
    assert [path.name for path in tmp_path.iterdir()] == ["spqr-node-file"]


@pytest.mark.heavy
def test_a_node_rebuilds_every_unit_with_the_key_that_it_has_here(
    tmp_path: Path, tiny_pipeline: DiffusionPipeline
) -> None:
    given = BASE_SETTINGS | {"store": str(tmp_path / "store"), "attach": "released"}
    (tmp_path / "words.txt").write_text("lightning\n", encoding="utf-8")
    write_adapter(tiny_pipeline, tmp_path / "styles" / "one", "peft")
    given |= {"attacks": "unlearndiffatk,ring-a-bell", "adaptations": f"{tmp_path}/styles/*"}
    given |= {"guard": f"blocklist={tmp_path / 'words.txt'}"}
    session = MeasuringSession(Run.from_settings(load_settings(tmp_path, given)))
    told, files = inputs(session.run.settings)
    node = RunNode(json.loads(json.dumps(told)))
    for one in files:
        for chunk in one.chunks():
            node.append(one.place, chunk)
    units: set[Unit] = set()
    more = {unit for cell in session.run.matrix.cells for unit in session.reads(cell, 1)}
    while more:
        units |= more
        more = {need for unit in more for need in unit.needs} - units
    made = {unit.order.makes for unit in units if unit.order}
    assert made >= {"weights", "tuning", "attacked", "drawn", "images"}
    for unit in units:
        assert unit.order is not None
        again = node.unit(unit.order.to_json())
        assert entry_key(again.kind, again.recipe) == entry_key(unit.kind, unit.recipe), unit.label
