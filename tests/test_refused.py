"""What is refused before the first image, kind by kind: exit code 4 and a sentence.

A row says how the input is made, what is given, and what is answered. What becomes of faults after
the images is in `test_after_the_images`, of damaged files in `test_mutated_files`, of judges'
folders in `test_before_the_images`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spqr_checks.cli.main import main
from spqr_checks.models.sources import resolve
from spqr_checks.pytest_plugin.options import OPTIONS

USAGE = 4


def nothing(folder: Path) -> None:
    """The input is in the settings."""


@dataclass(frozen=True)
class Kind:
    """One kind of input that cannot be meant.

    Attributes:
        given: settings by their names; ``{}`` in a value is the project's folder.
        said: what the answer holds.
        make: the files, in the project's folder.
        project: lines at the end of pyproject.toml.
    """

    given: dict[str, Any]
    said: str
    make: Callable[[Path], object] = nothing
    project: str = ""
    variables: dict[str, str] = field(default_factory=dict)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "p.csv")


def _link(folder: Path) -> None:
    (folder / "p.csv").symlink_to("nowhere")


def _large(folder: Path) -> None:
    with (folder / "p.csv").open("wb") as file:
        file.truncate(2**30)


def _taken(folder: Path) -> None:
    (folder / "taken").touch()


def _foreign(folder: Path) -> None:
    (folder / "report").mkdir()
    (folder / "report" / "scorecard.json").write_text("{}")


def _text(text: str, name: str = "p.csv") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _pictures(*sizes: tuple[int, int], cut: int = 0) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "set").mkdir()
        for number, size in enumerate(sizes):
            path = folder / "set" / f"{number}.png"
            Image.new("RGB", size).save(path)
            path.with_suffix(".txt").write_text("a picture")
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])

    return make


def _base(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(resolve("miniature"), folder / "base")
        change(folder / "base")

    return make


def _unet(change: Callable[[dict[str, Any], str], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (file,) = (folder / "unet").glob("*.safetensors")
        tensors = load_file(file)
        change(tensors, max(tensors, key=lambda key: tensors[key].numel()))
        save_file(tensors, file, metadata={"format": "pt"})

    return _base(make)


def _cut(base: Path) -> None:
    (file,) = (base / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])


def _adapter(**metadata: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        halves = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)}
        tensors = {f"unet.x.lora_{half}.weight": tensor for half, tensor in halves.items()}
        said = {f"unet.{name}": value for name, value in metadata.items()}
        kept = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(said)} if said else {})
        save_file(tensors, folder / "a.safetensors", metadata=kept)

    return make


def _peft(folder: Path) -> None:
    (folder / "peft").mkdir()
    config = {"peft_type": "LORA", "r": "two", "lora_alpha": 4, "target_modules": ["to_q"]}
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(1)}, folder / "peft" / "adapter_model.safetensors")


HAZRAD = (
    "prompt,kind,concept\na hazard sign,harmful,hazard\na road sign,lookalike,hazrad\na,benign,\n"
)
LORA = {"adapters": "{}/a.safetensors", "candidate": "base"}
BASE = {"base": "{}/base", "preset": "miniature", "candidate": "base"}
KINDS = {
    # settings: what no run can have
    "a list names one thing twice": Kind({"seeds": "0,0"}, "--spqr-seeds: setting 'seeds': 0 is"),
    "a list of names": Kind(
        {"profiles": "lite,lite"}, "--spqr-profiles: setting 'profiles': 'lite'"
    ),
    "an empty list": Kind(
        {"languages": ""}, "--spqr-languages: setting 'languages': names nothing"
    ),
    "no seed": Kind({"profiles": "lite", "seeds": ""}, "--spqr-seeds: no fine-tuning seed given"),
    "a negative seed": Kind({"seeds": "-1"}, "--spqr-seeds: setting 'seeds[0]'"),
    "a seed too large": Kind({"image_seed": 2**32}, "--spqr-image-seed: setting 'image_seed'"),
    "no thread": Kind({"threads": 0}, "--spqr-threads: setting 'threads'"),
    "an infinite number": Kind(
        {}, ":{line}: setting 'sampler.guidance'", project="sampler.guidance = inf"
    ),
    "no number": Kind({"adapter_scale": "nan"}, "--spqr-adapter-scale: setting 'adapter_scale'"),
    "a profile that no run uses": Kind(
        {},
        ":{line}: setting 'profile.own.learning_rate'",
        project="profile.own = {trains = 'lora', learning_rate = inf}",
    ),
    "a size that cannot be drawn": Kind(
        {}, ":{line}: sampler.height = 33: miniature draws", project="sampler.height = 33"
    ),
    "too few images of a distance": Kind({"images_benign": 2}, "'images_benign': input should be"),
    "an unknown setting": Kind({}, ":{line}: unknown setting 'colour'", project="colour = 1"),
    "an unknown preset": Kind({"preset": "nope"}, "--spqr-preset: unknown preset 'nope'"),
    "an unknown protocol": Kind({"protocol": "v9"}, "--spqr-protocol: unknown protocol 'v9'"),
    "a variable": Kind(
        {}, "SPQR_MIN_SCORE: setting 'min_score'", variables={"SPQR_MIN_SCORE": "x"}
    ),
    "a device that is not here": Kind({"device": "cuda:77"}, "--spqr-device: device 'cuda:77'"),
    "a judge's device": Kind({"judge_device": "gpu"}, "--spqr-judge-device: 'gpu' is no device"),
    # a project file that no parser takes
    "digits without end": Kind(
        {}, "not valid TOML: a number of too many", project=f"x = {'9' * 5000}"
    ),
    "brackets without end": Kind({}, "not valid TOML: nested too", project=f"x = {'[' * 5000}"),
    "no table": Kind({}, "'tool' is no table", project="\0tool = 3"),
    "an array of tables": Kind({}, "'spqr' is no table", project="\0[[tool.spqr]]\na = 1"),
    # places
    "a report in a file": Kind(
        {"report": "taken"}, "--spqr-report: taken cannot be written", _taken
    ),
    "someone's report": Kind(
        {"report": "report"}, "report/scorecard.json is already there", _foreign
    ),
    "a store in a file": Kind({"store": "taken"}, "--spqr-store: the store", _taken),
    "a job summary": Kind({}, "GITHUB_STEP_SUMMARY: ", variables={"GITHUB_STEP_SUMMARY": "."}),
    "no such user": Kind(
        {"reference": "~nosuchuser/x"}, "--spqr-reference: ~nosuchuser/x: there is no"
    ),
    "a name too long": Kind({"prompts": "x" * 5000}, "--spqr-prompts: xxx"),
    "a null byte": Kind(
        {}, ":{line}: 'a\\x00b': no file can be named", project='clip = "a\\u0000b"'
    ),
    "a pipe": Kind({"prompts": "{}/p.csv"}, "is a pipe, socket or device", _pipe),
    "a device of the system": Kind({"prompts": "/dev/zero"}, "--spqr-prompts: "),
    "a link to nothing": Kind({"prompts": "{}/p.csv"}, "a link to nothing", _link),
    "a file without end": Kind({"prompts": "{}/p.csv"}, "at most 512 MiB are read", _large),
    # prompts
    "a misspelt concept": Kind(
        {"prompts": "{}/p.csv"}, "p.csv:3: a lookalike prompt of", _text(HAZRAD)
    ),
    "no header": Kind({"prompts": "{}/p.csv"}, "p.csv", _text("a cat on a mat\na dog in a box\n")),
    "no column of prompts": Kind(
        {"prompts": "{}/p.csv"}, "id, words", _text("id,words\n1,a cat\n")
    ),
    "benign captions": Kind(
        {"prompts": "{}/p.csv"},
        "no prompts of kind 'harmful'",
        _text("case_number,source,prompt\n1,coco,a cat\n"),
    ),
    "an unknown language": Kind({"languages": "en,xx"}, "--spqr-languages: unknown language 'xx'"),
    # headers and data
    "a folder that is no pipeline": Kind(
        BASE, "no safetensors weights", lambda f: (f / "base").mkdir()
    ),
    "a damaged index": Kind(BASE, "model_index.json", _base(_text("[]", "model_index.json"))),
    "a truncated file": Kind(BASE, "--spqr-base: ", _base(_cut)),
    "a weight missing": Kind(BASE, "1 missing", _unet(lambda t, key: t.pop(key))),
    "a weight too many": Kind(BASE, "1 unexpected", _unet(lambda t, _: t.update(x=torch.ones(1)))),
    "another shape": Kind(
        BASE, "--spqr-base: ", _unet(lambda t, key: t.update({key: torch.ones(3)}))
    ),
    "an adapter without alpha": Kind(LORA, "--spqr-adapter-alpha N, or rank", _adapter()),
    "an adapter of another kind": Kind(
        LORA, "not use_dora", _adapter(r=2, lora_alpha=4, use_dora=True)
    ),
    "an adapter's alpha": Kind(LORA, "greater than 0", _adapter(r=2, lora_alpha=0)),
    "a PEFT configuration": Kind(
        {"adapters": "{}/peft", "candidate": "base"}, "'r': input should be a valid integer", _peft
    ),
    "a judge of another class": Kind(
        {"judge": "vit=miniature:clip"}, "--spqr-judge: miniature:clip"
    ),
    "a judge without the labels": Kind(
        {"judge": "classifier={}/judge"},
        "no label contains the words of",
        lambda f: (
            shutil.copytree(resolve("miniature:classifier"), f / "judge")
            and _relabel(f / "judge" / "config.json")
        ),
    ),
    "a data set of one image": Kind({"reference": "{}/set"}, "has one image", _pictures((8, 8))),
    "an image of one pixel": Kind(
        {"reference": "{}/set"}, "1 × 1 pixels", _pictures((8, 8), (8, 8), (1, 1))
    ),
    "a corrupt image": Kind(
        {"reference": "{}/set"}, "cannot be decoded", _pictures((8, 8), (64, 64), cut=20)
    ),
}


def _relabel(path: Path) -> None:
    config = json.loads(path.read_text())
    config["id2label"] = {key: f"thing {key}" for key in config["id2label"]}
    path.write_text(json.dumps(config))


FLAGS = {option.field: option.flag for option in OPTIONS}
CHEAP = {"candidate": "base", "profiles": ""}
"""Of what a row is not about, as little as possible."""


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_with_exit_code_4_and_a_sentence(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name, value in row.variables.items():
        monkeypatch.setenv(name, value)
    row.make(tmp_path)
    given = {k: str(v).format(tmp_path) for k, v in (CHEAP | row.given).items()}
    table = "".join(f"{k} = {v}\n" for k, v in given.items() if k not in FLAGS)
    written = f"[tool.spqr]\n{table}{row.project}"
    project = row.project[1:] if row.project.startswith("\0") else written
    (tmp_path / "pyproject.toml").write_text(project)
    flags = [f"{FLAGS[k]}={v}" for k, v in given.items() if k in FLAGS]
    assert main(["estimate", "--probe", *flags]) == USAGE
    answer = capsys.readouterr()
    assert row.said.format(line=len(written.splitlines())) in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert not (tmp_path / "spqr-report").exists()
    assert not (tmp_path / ".spqr").exists()
