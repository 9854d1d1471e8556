"""What ends a run before its first image, with where it was said and what to do."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from warm import fill

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import contents_digest
from spqr_checks.judges.classifier import refuse_labels
from spqr_checks.judges.registry import judge_recipe
from spqr_checks.models.sources import resolve
from spqr_checks.preflight import preflight
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.settings import Settings, load_settings
from spqr_checks.user_files import MOST_CONFIGURATION, path_of, read_text, read_toml


def settings(folder: Path, **given: Any) -> Settings:
    return load_settings(folder, {"store": str(folder / "store"), **given})


def refused(of: Settings) -> list[str]:
    try:
        preflight(of, measures=False)
    except UserError as error:
        return list(error.problems)
    return []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


# ---- places ----------------------------------------------------------------------------------


def test_a_folder_without_anything_in_the_way_has_no_problem(tmp_path: Path) -> None:
    assert refused(settings(tmp_path)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"report": "taken"}, "--spqr-report: taken cannot be written to: "),
        ({"report": "taken/below"}, "--spqr-report: taken/below cannot be written to: "),
        ({"report": "foreign"}, "--spqr-report: foreign/scorecard.json is already there"),
        ({"report": "odd"}, "--spqr-report: odd/summary.md is already there"),
        ({"protocol": "v9"}, "--spqr-protocol: unknown protocol 'v9'"),
        ({"device": "cuda:77"}, "--spqr-device: device 'cuda:77' is not here: torch "),
        ({"device": "gpu"}, "--spqr-device: 'gpu' is no device"),
        ({"judge_device": "meta"}, "--spqr-judge-device: device 'meta' is not here"),
    ],
    ids=str,
)
def test_a_place_or_device_that_will_not_do_is_named(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "scorecard.json").write_text("{}")
    (tmp_path / "odd" / "summary.md").mkdir(parents=True)
    (problem,) = refused(settings(tmp_path, **given))
    assert problem.startswith(said)


def test_compiled_networks_do_not_go_with_offload(tmp_path: Path) -> None:
    given = {"device": "cuda", "offload": "model", "sampler.compile": "true"}
    said = "sampler.compile does not go with offload = 'model'; leave one of them out"
    assert any(problem.endswith(said) for problem in refused(settings(tmp_path, **given)))


@pytest.mark.parametrize("name", ["folder", "none/here", "pipe"])
def test_a_job_summary_that_cannot_be_appended_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / name))
    (problem,) = refused(settings(tmp_path))
    assert problem.startswith("GITHUB_STEP_SUMMARY: ")


def test_all_that_is_wrong_is_said_at_once_with_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.spqr]\nlanguages = ["en", "xx"]\nreference = "nowhere"\n[tool.spqr.sampler]\n'
        "height = 33\n"
    )
    (tmp_path / "taken").touch()
    monkeypatch.setenv("SPQR_REPORT", "taken")
    named = {"candidate": "./absent", "adapters": "./absent.safetensors"}
    with pytest.raises(UserError) as error:
        preflight(settings(tmp_path, protocol="v9", datasets="gone", **named))
    project = tmp_path / "pyproject.toml"
    for said in (
        f"{project}:2: unknown language 'xx'",
        f"{project}:3: data set 'nowhere': no such folder",
        f"{project}:5: sampler.height = 33: miniature draws multiples of 2 pixels",
        "SPQR_REPORT: taken cannot be written to",
        "--spqr-protocol: unknown protocol",
        "--spqr-datasets: data set 'gone'",
        "--spqr-candidate: './absent' does not exist",
        "--spqr-adapters: './absent.safetensors' does not exist",
    ):
        assert any(problem.startswith(said) for problem in error.value.problems), said
    assert len(error.value.problems) == 8
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("candidate", ["./absent", "denoiser=./absent", "text-encoder=./absent"])
def test_a_candidate_is_looked_for_though_no_prompt_can_be_read(
    tmp_path: Path, candidate: str
) -> None:
    said = refused(settings(tmp_path, prompts="gone.csv", candidate=candidate))
    assert any(line.startswith("--spqr-candidate: './absent' does not exist") for line in said)


def test_a_store_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(UserError, match=r"^--spqr-store: the store .* must be a folder"):
        preflight(settings(tmp_path, candidate="base", profiles=""))


# ---- names and files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b", "x" * 5000, "d/" + "y" * 300])
def test_a_name_that_no_file_can_have_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError) as error:
        path_of(name)
    assert len(str(error.value)) < 200
    for field in ("store", "report", "reference", "prompts", "candidate"):
        with pytest.raises(UserError, match=f"^--spqr-{field}: "):
            preflight(settings(tmp_path, **{field: name}))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_CONFIGURATION + 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pipe, "a pipe, socket or device"),
        (_dangling, "a link to nothing"),
        (Path.mkdir, "a folder, and a file is needed"),
        (_large, "MiB, and at most 16 MiB are read"),
    ],
)
def test_what_is_no_file_of_a_readable_size_is_never_opened(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "x.toml"
    make(path)
    with pytest.raises(UserError, match=said):
        read_toml(path)
    if make is not _large:
        with pytest.raises(UserError, match=said):
            PromptSet.load([str(path.rename(tmp_path / "x.csv"))])


def test_a_text_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa")
    assert read_text(tmp_path / "x") == "a"


# ---- prompts ---------------------------------------------------------------------------------


def test_a_look_alike_of_a_concept_that_is_misspelt_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(
        "prompt,kind,concept\na hazard sign,harmful,hazard\na road sign,lookalike,hazrad\n"
        "a tree,benign,\na cloud,benign,cluod\n"
    )
    with pytest.raises(UserError) as error:
        PromptSet.load([str(path)])
    first, second = error.value.problems
    assert first.startswith(f"{path}:3: a lookalike prompt of the concept 'hazrad'")
    assert first.endswith("do you mean 'hazard'?")
    assert second.endswith("; there are: hazard")
    assert len(PromptSet.load([str(path)], needs_harmful=False).prompts) == 4


# ---- data sets and judges --------------------------------------------------------------------


def _png(path: Path, width: int, height: int) -> None:
    Image.new("RGB", (width, height)).save(path)


def test_all_images_of_a_data_set_are_looked_at_before_any_is_decoded(tmp_path: Path) -> None:
    for name, size in (("good", (8, 8)), ("cut", (64, 64)), ("dot", (1, 1)), ("none", (8, 8))):
        _png(tmp_path / f"{name}.png", *size)
        (tmp_path / f"{name}.txt").write_text("a picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "none.png").write_bytes(b"plain text")
    with pytest.raises(UserError) as error:
        contents_digest(tmp_path)
    said = dict(zip(("cut", "dot", "none"), error.value.problems, strict=True))
    assert "cut.png: cannot be decoded" in said["cut"]
    assert "dot.png: 1 × 1 pixels" in said["dot"]
    assert "none.png: cannot be decoded: not an image" in said["none"]


def test_a_chunk_with_a_wrong_checksum_is_found_without_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _png(path, 8, 8)
    (tmp_path / "a.txt").write_text("a picture")
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT")
    length = struct.unpack(">I", content[at - 4 : at])[0]
    wrong = zlib.crc32(bytes(content[at : at + 4 + length])) ^ 1
    content[at + 4 + length : at + 8 + length] = struct.pack(">I", wrong)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        contents_digest(tmp_path)


def test_a_data_set_of_one_image_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    _png(folder / "a.png", 8, 8)
    (folder / "a.txt").write_text("a picture")
    with pytest.raises(UserError, match=r"^--spqr-reference: data set '.*' has one image"):
        preflight(settings(tmp_path, candidate="base", profiles="", reference=str(folder)))


def test_reference_images_need_no_captions_and_what_is_learned_does(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "ab":
        _png(folder / f"{name}.png", 8, 8)
    given = {"candidate": "base", "reference": str(folder)}
    bare = preflight(settings(tmp_path, profiles="", **given)).units.dataset_features
    unit = bare(str(folder), 512)
    (folder / "a.txt").write_text("a picture")
    assert bare(str(folder), 512).recipe == unit.recipe
    _png(folder / "a.png", 9, 8)
    assert bare(str(folder), 512).recipe != unit.recipe
    with pytest.raises(UserError, match=r"^--spqr-datasets: .*b\.png: no caption; write it"):
        preflight(settings(tmp_path, datasets=str(folder), **given))


def _without_a_weight(source: str, folder: Path, network: str = "") -> Path:
    shutil.copytree(resolve(source), folder)
    file = next((folder / network).glob("*.safetensors"))
    tensors = load_file(file)
    tensors.pop(next(iter(sorted(tensors))))
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_weights_that_no_loader_takes_are_refused_by_the_setting_that_names_them(
    tmp_path: Path,
) -> None:
    clip, scores, features = (
        _without_a_weight("miniature:clip", tmp_path / name) for name in ("j", "a", "f")
    )
    given = {
        "base": str(_without_a_weight("miniature", tmp_path / "base", "unet")),
        "judge": f"clip={clip}",
        "adherence": f"clip={scores}",
        "features": f"clip={features}",
    }
    chosen = settings(tmp_path, preset="miniature", candidate="base", profiles="", **given)
    with pytest.raises(UserError) as error:
        preflight(chosen)
    said = dict(problem.split(": ", 1) for problem in error.value.problems)
    assert list(said) == ["--spqr-judge", "--spqr-adherence", "--spqr-features", "--spqr-base"]
    assert all("1 missing" in problem for problem in said.values())
    preflight(chosen, measures=False)


@pytest.mark.parametrize("prompts", ["packaged", "harmful.csv"])
def test_what_has_made_entries_of_the_store_or_is_asked_nothing_is_not_looked_at(
    prompts: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}
    if prompts != "packaged":  # nothing whose adherence could be measured
        rows = (f"{i},a hazard {i},harmful,hazard,signs,en,photo" for i in range(3))
        head = "id,prompt,kind,concept,category,language,domain"
        Path(prompts).write_text("\n".join([head, *rows]))
        Path("quiet.txt").write_text("a quiet view\nanother view")
        given = {"prompts": prompts, "datasets": "self:quiet.txt", "concepts": "hazard"}
    session = fill(tmp_path, **given)
    assert ("alignment" in {c.row.reads for c in session.run.matrix.cells}) is (not given)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from warm import BASE_SETTINGS\n"
        "from spqr_checks.preflight import preflight\n"
        "from spqr_checks.settings import load_settings\n"
        f"given = BASE_SETTINGS | {given!r} | {{'store': {str(tmp_path / '.spqr')!r}}}\n"
        "preflight(load_settings(Path.cwd(), given))\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_a_judge_s_labels_are_held_against_the_concepts_without_loading_it(tmp_path: Path) -> None:
    spec = "classifier=miniature:classifier"
    assert judge_recipe(spec, 0.5, ["hazard"])
    with pytest.raises(UserError, match="no label contains the words of 'teapot'"):
        judge_recipe(spec, 0.5, ["hazard", "teapot"])
    (tmp_path / "m.safetensors").touch()
    for text in ("[]", "{}", '{"id2label": {"a": "b"}}', '{"id2label": 3}', "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json:"):
            refuse_labels(str(tmp_path), lambda names: {})


# ---- attacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attacks": "ring-a-bel"}, "--spqr-attacks: unknown attack 'ring-a-bel'"),
        ({"attacks": "diffzoo"}, "--spqr-attacks: attack 'diffzoo' needs a masked language model"),
        ({"attacks": "diffzoo=./none"}, "none"),
        ({"attacks": "replay=absent.csv"}, "absent.csv"),
    ],
    ids=str,
)
def test_an_attack_that_cannot_be_led_is_named(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError) as error:
        preflight(settings(tmp_path, **given))
    assert said in str(error.value)


@pytest.mark.heavy
def test_attacks_on_encoders_out_of_reach_are_refused_before_anything_is_loaded(
    tmp_path: Path, real_class: Callable[[str], Path]
) -> None:
    given = {"base": str(real_class("pixart")), "preset": "miniature", "profiles": ""}
    with pytest.raises(UserError) as error:
        preflight(settings(tmp_path, attacks="ring-a-bell,p4d", **given))
    assert len([p for p in error.value.problems if "Leave the attack out" in p]) == 2
    preflight(settings(tmp_path, attacks="sneakyprompt", candidate="base", **given))


@pytest.mark.heavy
def test_adaptations_that_the_base_cannot_take_are_refused_before_anything_is_loaded(
    tmp_path: Path, real_class: Callable[[str], Path]
) -> None:
    names = "textual-inversion,distilled,image-to-image,inpainting"
    given = {"base": str(real_class("pixart")), "candidate": "base", "preset": "miniature"}
    with pytest.raises(UserError) as error:
        preflight(settings(tmp_path, adaptations=f"{names},few-step", **given))
    said = [p for p in error.value.problems if p.startswith("--spqr-adaptations: adaptation ")]
    assert [p.split("'")[1] for p in said] == names.split(",")
