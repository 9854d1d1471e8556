"""Judges by name, and what determines a verdict."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges import registry
from spqr_checks.judges.base import JudgeKind, Verdict
from spqr_checks.judges.registry import judge_recipe, load_judge

CONCEPTS = ("hazard", "red triangle")


def test_a_judge_is_loaded_and_checked(classifier_dir: Path, pictures: list[Image.Image]) -> None:
    verdicts = load_judge(f"classifier={classifier_dir}", 0.5, CONCEPTS).judge(pictures)
    assert len(verdicts) == 5
    assert all(set(verdict.scores) == set(CONCEPTS) for verdict in verdicts)


def test_what_a_judges_file_defines_is_held_to_the_rules(
    classifier_dir: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spqr_checks.judges import classifier

    class Lazy:
        def judge(self, images: list[Any]) -> list[Verdict]:
            return [Verdict(False, 0.0, dict.fromkeys(CONCEPTS, 0.0))] * (len(images) - 1)

    lazy = JudgeKind(classifier.Options, lambda _: Lazy())
    monkeypatch.setattr(classifier, "JUDGE", lazy)
    with pytest.raises(JudgeError, match="4 answers for 5 images"):
        load_judge(f"classifier={classifier_dir}", 0.5, CONCEPTS).judge(pictures)


def test_every_file_of_the_folder_is_a_judge() -> None:
    assert {"classifier", "clip"} <= set(registry.JUDGES.names())
    for name in registry.JUDGES.names():
        found = registry.kind(name)
        assert found.options() is not None, "every option has a default"
        assert found.packages


def test_no_judge_s_file_imports_anything_heavy() -> None:
    code = (
        "import sys; from spqr_checks.judges.registry import JUDGES, kind; "
        "[kind(name) for name in JUDGES.names()]; "
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'onnxruntime', 'cv2', 'nudenet'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("call", [load_judge, judge_recipe])
@pytest.mark.parametrize(
    ("spec", "threshold", "concepts", "what"),
    [
        (
            "oracle=x",
            0.5,
            CONCEPTS,
            "unknown judge 'oracle'; there are: ([a-z0-9-]+, )*classifier, clip",
        ),
        ("base=x", 0.5, CONCEPTS, "unknown judge 'base'"),
        ("", 0.5, CONCEPTS, "unknown judge ''"),
        ("clip", 0.5, CONCEPTS, "names no model; write clip=PATH"),
        ("clip=", 0.5, CONCEPTS, "names no model"),
        ("registry=x", 0.5, CONCEPTS, "unknown judge 'registry'"),
        ("any(clip=x,oracle)", 0.5, CONCEPTS, "unknown judge 'oracle'"),
        ("any(clip=x,classifier)", 0.5, CONCEPTS, "'classifier' names no model"),
        ("clip=x", 0.0, CONCEPTS, "threshold 0.0 must lie between"),
        ("clip=x", 1.0, CONCEPTS, "threshold 1.0 must lie between"),
        ("clip=x", float("nan"), CONCEPTS, "threshold nan must lie between"),
        ("clip=x", 0.5, (), "no concepts"),
        ("clip=x", 0.5, ("hazard", " "), "no concepts to look for, or an empty one"),
        ("clip=x", 0.5, ("hazard", "hazard"), "listed twice"),
        ("classifier=/no/such/folder", 0.5, CONCEPTS, "/no/such/folder"),
    ],
)
def test_mistakes_are_named(
    call: Any, spec: str, threshold: float, concepts: tuple[str, ...], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        call(spec, threshold, concepts)


class TestRecipe:
    def test_threshold_concepts_weights_and_preprocessing_are_in_it(
        self, classifier_dir: Path, tmp_path: Path
    ) -> None:
        changed = shutil.copytree(classifier_dir, tmp_path / "changed")
        config = changed / "preprocessor_config.json"
        config.write_text(config.read_text().replace("16", "17"))
        spec = f"classifier={classifier_dir}"
        recipes = [
            judge_recipe(spec, 0.5, CONCEPTS),
            judge_recipe(spec, 0.6, CONCEPTS),
            judge_recipe(spec, 0.5, CONCEPTS[:1]),
            judge_recipe(f"classifier={changed}", 0.5, CONCEPTS),
            judge_recipe(f"clip={classifier_dir}", 0.5, CONCEPTS),
        ]
        assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])

    def test_the_place_of_the_folder_is_not(self, classifier_dir: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(classifier_dir, tmp_path / "copy")
        assert judge_recipe(f"classifier={copy}", 0.5, CONCEPTS) == judge_recipe(
            f"classifier={classifier_dir}", 0.5, CONCEPTS
        )

    def test_it_is_had_without_torch(self, classifier_dir: Path) -> None:
        code = (
            "import sys; from spqr_checks.judges.registry import judge_recipe; "
            f"judge_recipe('classifier={classifier_dir}', 0.5, ('hazard',)); "
            "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("judge", ["classifier", "vit"])
def test_a_model_of_another_class_is_refused_before_it_is_loaded(
    judge: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds a CLIPModel, but a model …ForImageClassification"):
        judge_recipe(f"{judge}=miniature:clip", 0.5, CONCEPTS)
    for text in ("", "[]", '{"architectures": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json:"):
            judge_recipe(f"{judge}={tmp_path}", 0.5, CONCEPTS)
