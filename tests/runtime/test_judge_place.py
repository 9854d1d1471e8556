"""Where the judge of a run computes, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from spqr_checks.judges.base import Verdict
from spqr_checks.matrix import State
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.runtime.units import Batch, Units
from spqr_checks.settings import Settings

CONCEPTS = ("hazard", "bolt")


class Asked:
    """Stands for the registry; remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def load_judge(self, *args: Any) -> Asked:
        self.calls.append(args)
        return self

    def judge(self, images: list[Any]) -> list[Verdict]:
        return [Verdict(False, 0.25, dict.fromkeys(CONCEPTS, 0.25))] * len(images)


def verdicts_of(settings: Settings, folder: Path) -> Any:
    store = SimpleNamespace(path=lambda *_: folder)
    policy = SimpleNamespace(concepts=CONCEPTS)
    run: Any = SimpleNamespace(settings=settings, policy=policy, store=store)
    recipes = {"drawn_recipe": lambda _: {}, "recipe": lambda _: {}, "needs": lambda _: ()}
    states: Any = SimpleNamespace(**recipes, base_digest="b")
    units = Units(run, states)
    images: Any = SimpleNamespace(kind="images", recipe={"of": "these"})
    units.images = lambda _: images  # type: ignore[method-assign, assignment]
    group = PromptGroup("harmful", "hazard", "en", "photo")
    return units.verdicts(Batch(State("base"), group, ("a", "b"), (0, 0)))


def place(tmp_path: Path, **settings: Any) -> str:
    made = Settings(judge="nudenet", **settings)
    unit = verdicts_of(made, tmp_path)
    assert unit.device.split(":")[0] == unit.recipe["device"]
    return str(unit.recipe["device"])


def test_a_judge_of_the_cpu_has_the_same_verdicts_beside_every_device(tmp_path: Path) -> None:
    pytest.importorskip("nudenet")
    assert place(tmp_path, device="cuda:1") == "cpu"
    assert place(tmp_path, device="cuda:1", judge_device="cuda:2") == "cpu"


@pytest.mark.parametrize(
    ("settings", "given", "kind"),
    [
        ({"device": "cuda:1"}, "cuda:1", "cuda"),
        ({"device": "cuda:1", "judge_device": "cpu"}, "cpu", "cpu"),
        ({"device": "cpu", "judge_device": "cuda:3"}, "cuda:3", "cuda"),
    ],
)
def test_the_judge_has_a_device_of_its_own_and_its_options(
    settings: dict[str, str], given: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for name in ("000.png", "001.png"):
        Image.new("RGB", (8, 8)).save(source / name)
    tables = {"clip": {"templates": ["{}"]}}
    made = Settings(judge="clip=miniature:clip", judges=tables, judge_threshold=0.4, **settings)
    unit = verdicts_of(made, source)
    assert unit.recipe["device"] == kind
    asked = Asked()
    monkeypatch.setattr("spqr_checks.judges.registry.load_judge", asked.load_judge)
    unit.make(tmp_path)
    assert asked.calls == [("clip=miniature:clip", 0.4, CONCEPTS, given, tables)]
    assert len(json.loads((tmp_path / "verdicts.json").read_text())) == 2
