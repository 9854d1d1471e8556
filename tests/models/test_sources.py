"""Where weights come from, and the digests that stand for them."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spqr_checks.cli import main as cli
from spqr_checks.errors import UserError
from spqr_checks.models import sources
from spqr_checks.models.sources import resolve, source_recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with one weights file and its neighbours."""
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    save_file({"w": torch.arange(6.0)}, folder / "unet" / "weights.safetensors")
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "config.json").write_text('{"a": 1}')
    (folder / "merges.txt").write_text("a b")
    (folder / "spiece.model").write_bytes(b"\x00\x01")
    (folder / "README.md").write_text("hello")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline Hub cache; returns the snapshot folder of owner/name at COMMIT."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1").write_text(COMMIT)
    save_file({"w": torch.zeros(2)}, snapshot / "model.safetensors")
    return snapshot


# ---- recipes ----------------------------------------------------------------------------------


def test_a_recipe_lists_what_decides_the_bytes_in_sorted_order(model: Path) -> None:
    files = source_recipe(str(model))["files"]
    assert isinstance(files, dict)
    assert list(files) == [
        "merges.txt",
        "model_index.json",
        "spiece.model",
        "unet/config.json",
        "unet/weights.safetensors",
    ]


@pytest.mark.parametrize(
    "name", ["unet/weights.safetensors", "unet/config.json", "merges.txt", "spiece.model"]
)
def test_a_changed_byte_changes_the_recipe(model: Path, name: str) -> None:
    before = source_recipe(str(model))
    data = bytearray((model / name).read_bytes())
    data[-1] ^= 1
    (model / name).write_bytes(data)
    assert source_recipe(str(model)) != before


def test_a_copy_elsewhere_has_the_same_recipe(model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "copy")
    assert source_recipe(str(tmp_path / "copy")) == source_recipe(str(model))


def test_an_added_or_renamed_file_changes_the_recipe_and_a_readme_does_not(model: Path) -> None:
    before = source_recipe(str(model))
    (model / "README.md").write_text("other")
    (model / ".cache").mkdir()
    (model / ".cache" / "download.json").write_text("{}")
    assert source_recipe(str(model)) == before
    (model / "merges.txt").rename(model / "vocab.txt")
    assert source_recipe(str(model)) != before


def test_linked_folders_are_followed_and_a_circle_of_links_ends(
    model: Path, tmp_path: Path
) -> None:
    whole = source_recipe(str(model))
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("merges.txt", "model_index.json", "spiece.model", "unet"):
        (linked / name).symlink_to(model / name)
    assert source_recipe(str(linked)) == whole
    (linked / "self").symlink_to(linked)
    assert source_recipe(str(linked)) == whole


def test_two_links_to_one_folder_both_count(model: Path) -> None:
    (model / "unet_2").symlink_to(model / "unet")
    files = source_recipe(str(model))["files"]
    assert isinstance(files, dict)
    assert files["unet_2/weights.safetensors"] == files["unet/weights.safetensors"]


def test_a_file_is_read_once_until_it_changes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = sources.file_digest
    monkeypatch.setattr(sources, "file_digest", lambda p: (read.append(p), original(p))[1])
    source_recipe(str(model))
    first = len(read)
    assert first == 5
    source_recipe(str(model))
    assert len(read) == first
    path = model / "merges.txt"
    status = path.stat()
    path.write_text("a c")  # of the same length
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    source_recipe(str(model))
    assert read[first:] == [path]


def test_a_single_file_has_a_recipe(model: Path) -> None:
    path = model / "unet" / "weights.safetensors"
    assert resolve(str(path)) == path
    assert list(source_recipe(str(path))["files"]) == ["weights.safetensors"]  # type: ignore[arg-type]


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no safetensors weights"):
        source_recipe(str(tmp_path))


def test_recipes_are_made_without_torch(model: Path) -> None:
    code = (
        "import sys; from spqr_checks.models.sources import source_recipe; "
        f"source_recipe({str(model)!r}); "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'safetensors') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "../nothing", "~/no-such", ""])
def test_a_path_that_does_not_exist_is_named(source: str) -> None:
    with pytest.raises(UserError, match="does not exist") as raised:
        resolve(source)
    assert repr(source) in str(raised.value)


def test_an_unknown_users_home_is_a_path_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="does not exist"):
        resolve("~no-such-user-here/model")


@pytest.mark.parametrize("source", ["a b", "a/b/c", "owner/", "-x", "owner/name@", "ünï/code"])
def test_what_is_no_hub_id_is_not_asked_for(source: str) -> None:
    with pytest.raises(UserError, match="neither an existing folder nor a Hub id"):
        resolve(source)


@given(st.text(max_size=30))
def test_any_other_text_ends_in_a_user_error(source: str) -> None:
    """Apart from what looks like a Hub id, which would be asked for, and existing paths."""
    if sources._HUB_ID.fullmatch(source) or source in sources._BUILT_IN:
        return
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if source and Path(source).expanduser().exists():
            return
    with pytest.raises(UserError):
        resolve(source)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"model.gguf is not a safetensors file"):
        resolve(str(path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.pth", "a.ckpt", "A.CKPT"])
def test_a_pickle_without_safetensors_beside_it_is_refused_with_the_conversion(
    model: Path, name: str
) -> None:
    path = model / "text_encoder" / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    for source in (model, path):
        for ask in (resolve, source_recipe):
            with pytest.raises(UserError, match="is a pickle") as raised:
                ask(str(source))
            first, command = str(raised.value).splitlines()
            assert str(path) in first
            assert command.startswith(f"spqr convert {source} --out ")


def test_a_pickle_that_no_loader_reads_is_left_alone(model: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")  # safetensors beside it
    (model / "v1.ckpt").write_bytes(b"x")  # in the root of a pipeline
    assert resolve(str(model)) == model


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("name", "converted"), [("pytorch_model.bin", "model"), ("it's mine.pt", "it's mine")]
)
def test_the_conversion_command_does_what_it_says(
    tmp_path: Path, name: str, converted: str, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"a": torch.randn(3, 4).T, "b": torch.ones(2)}
    weights["tied"] = weights["a"]
    folder = tmp_path / "its folder"
    folder.mkdir()
    torch.save(weights, folder / name)
    with pytest.raises(UserError) as raised:
        resolve(str(folder if whole else folder / name))
    command = shlex.split(str(raised.value).splitlines()[1])
    assert command[0] == "spqr"
    assert cli.main(command[1:]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert resolve(str(written)) == written
    file = written / f"{converted}.safetensors" if whole else written
    assert file.name == f"{converted}.safetensors"
    tensors = load_file(file)
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)


@pytest.mark.parametrize("source", ["miniature", "miniature:clip", "miniature:classifier"])
def test_packaged_weights_that_are_not_there_name_the_command_that_trains_them(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_BUILT_IN_FOLDER", tmp_path / "weights")
    for ask in (resolve, source_recipe):
        with pytest.raises(UserError, match="spqr miniature train --out") as raised:
            ask(source)
        assert source in str(raised.value)


def test_packaged_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_BUILT_IN_FOLDER", tmp_path)
    for source, folder in (("miniature", "pipeline"), ("miniature:clip", "clip")):
        (tmp_path / folder).mkdir()
        save_file({"w": torch.zeros(1)}, tmp_path / folder / "model.safetensors")
        assert resolve(source) == tmp_path / folder


# ---- the Hub ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["owner/name", "owner/name@v1", f"owner/name@{COMMIT}"])
def test_a_hub_id_resolves_to_its_snapshot_and_the_commit_is_in_the_recipe(
    hub: Path, source: str
) -> None:
    assert resolve(source) == hub
    recipe = source_recipe(source)
    assert recipe["commit"] == COMMIT
    assert list(recipe["files"]) == ["model.safetensors"]  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["owner/other", "owner/name@no-such-tag"])
def test_a_hub_id_that_cannot_be_had_offline_is_refused(hub: Path, source: str) -> None:
    with pytest.raises(UserError, match="not in the Hub cache") as raised:
        resolve(source)
    assert source in str(raised.value)


def test_a_repository_that_does_not_exist_is_refused(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("404 Client Error.\nlong explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"owner/gone.*404 Client Error\.$"):
        resolve("owner/gone")


@pytest.mark.parametrize("pipeline", [False, True])
def test_only_safe_files_are_asked_for_and_of_a_pipeline_only_its_parts(
    hub: Path, monkeypatch: pytest.MonkeyPatch, pipeline: bool
) -> None:
    import huggingface_hub

    asked: dict[str, object] = {}
    if pipeline:
        (hub / "model_index.json").write_text("{}")
        (hub / "unet").mkdir()
        (hub / "model.safetensors").rename(hub / "unet" / "model.safetensors")

    def record(name: str, **given: object) -> str:
        asked.update(given, name=name)
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    resolve("owner/name@v1")
    assert asked == {
        "name": "owner/name",
        "revision": "v1",
        "allow_patterns": [
            "*/*.safetensors" if pipeline else "*.safetensors",
            *("*.json", "*.txt", "*.model", "*.jinja"),
        ],
        "local_files_only": True,
    }


def test_checkpoints_beside_a_pipelines_parts_do_not_count(model: Path) -> None:
    before = source_recipe(str(model))
    save_file({"w": torch.ones(1)}, model / "v1-pruned.safetensors")
    assert source_recipe(str(model)) == before


def test_a_repository_without_safetensors_is_refused(hub: Path) -> None:
    (hub / "model.safetensors").unlink()
    (hub / "config.json").write_text("{}")
    with pytest.raises(UserError, match="has no safetensors weights on the Hub"):
        resolve("owner/name")


# ---- headers ----------------------------------------------------------------------------------


def test_a_header_is_read_without_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3).half(), "y": torch.zeros(())}, path, metadata={"k": "v"})
    assert sources.safetensors_header(path) == {"x": ("F16", (2, 3)), "y": ("F32", ())}
    assert sources.safetensors_metadata(path) == {"k": "v"}


@given(length=st.integers(0, 10_000))
def test_every_truncation_is_seen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.safetensors"
    save_file({"x": torch.zeros(50), "y": torch.zeros(3)}, path)
    data = path.read_bytes()
    cut = data[: length % len(data)]
    path.write_bytes(cut)
    with pytest.raises(UserError, match=r"a.safetensors is truncated or is not a safetensors"):
        sources.safetensors_header(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a safetensors file at all",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"x": {}}',
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (58).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[1e999],"data_offsets":[0,0]}}',
    ],
)
def test_other_bytes_are_no_safetensors_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not a safetensors file"):
        sources.safetensors_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.safetensors: cannot be read \(No such file"):
        sources.safetensors_header(tmp_path / "a.safetensors")
