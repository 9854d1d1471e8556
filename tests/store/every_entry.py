"""What makes the recipe of every kind of entry, of every choice of every registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from package_files import NAME
from PIL import Image
from safetensors.numpy import save_file
from warm import BASE_SETTINGS

from spqr_checks.alignment import registry as alignment
from spqr_checks.checks import finished
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.finetuning.datasets import dataset_recipe
from spqr_checks.generation.guidance import registry as guidance
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import ALIGNED, BASE, DESTROYED, Draw, State
from spqr_checks.metrics import adherence, distances, features
from spqr_checks.metrics.recipe import adherence_recipe, features_recipe, quality_recipe
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings


def session_of(folder: Path, **settings: Any) -> MeasuringSession:
    given = BASE_SETTINGS | {"store": str(folder / ".spqr")} | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def drawn(session: MeasuringSession, state: State) -> dict[str, Any]:
    """The recipe of the first images of a state."""
    draws = [d for c in session.run.matrix.cells for d in session.run.matrix.draws(c)]
    group = draws[0].group
    return session.units.images(session.units.batches(Draw(state, group, 1))[0]).recipe


def read(session: MeasuringSession, kind: str) -> dict[str, Any]:
    """The recipe of the first unit of that kind that a cell reads."""
    units = (u for cell in session.run.matrix.cells for u in session.reads(cell, 1))
    return next(unit.recipe for unit in units if unit.kind == kind)


def tuned(session: MeasuringSession, origin: str = "aligned") -> State:
    return next(
        c.state
        for c in session.run.matrix.cells
        if c.state.tuning is not None and c.state.origin == origin
    )


def attacked(session: MeasuringSession) -> Any:
    cell = next(c for c in session.run.matrix.cells if c.attack is not None)
    batch = session.units.batches(session.run.matrix.draws(cell)[0])[0]
    return session.units.attacked(batch)[0].recipe


def fine_tuned(session: MeasuringSession) -> Any:
    return session.states.tuning_unit(tuned(session)).recipe


def adapted(session: MeasuringSession) -> Any:
    state = next(c.state for c in session.run.matrix.cells if c.state.adaptation is not None)
    return next(u.recipe for u in session.states.needs(state) if u.kind == "adaptation")


def entries(folder: Path) -> dict[str, Callable[[], Any]]:
    """What makes the recipe of every kind of entry, of every choice of every registry.

    The name of an entry is its kind in the store and what was chosen; where a file of a registry
    was chosen, that is the file's module.
    """
    source = "miniature"
    (folder / "prompts.txt").write_text("a red circle\n", encoding="utf-8")
    photos = folder / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    (photos / "a.txt").write_text("a black square", encoding="utf-8")
    names = ("x.lora_A.weight", "x.lora_B.weight", "x.alpha")
    save_file(dict.fromkeys(names, np.zeros(1, np.float32)), folder / "lora.safetensors")
    plain = session_of(folder)
    found: dict[str, Callable[[], Any]] = {
        "images base": lambda: drawn(session_of(folder), BASE),
        "images destroyed": lambda: drawn(session_of(folder), DESTROYED),
        "images with adapters": lambda: drawn(
            session_of(folder, candidate="base", adapters=str(folder / "lora.safetensors")),
            ALIGNED,
        ),
        "images tuned": lambda: drawn(plain, tuned(plain)),
        "images offloaded": lambda: drawn(session_of(folder, offload="model", device="cuda"), BASE),
        "images checked": lambda: drawn(session_of(folder, safety_checker=True), ALIGNED),
        "tuning": lambda: fine_tuned(session_of(folder)),
        "attack": lambda: attacked(session_of(folder, attacks="ring-a-bell")),
        "adaptation": lambda: adapted(session_of(folder, adaptations="dreambooth")),
        "features of data": lambda: plain.units.dataset_features("miniature:stripes", 4).recipe,
        "scorecards": lambda: finished._recipe(session_of(folder, candidate="method:uce")),
    }
    for kind in ("verdicts", "alignment", "features"):
        found[f"{kind} of a cell"] = lambda kind=kind: read(session_of(folder), kind)  # type: ignore[misc]
    for name in alignment.METHODS.own():
        file = f"{NAME}.alignment.{name.replace('-', '_')}"
        one = session_of(folder, candidate=f"method:{name}")
        found[f"alignment {file}"] = lambda one=one: one.states.alignment_unit.recipe  # type: ignore[misc]
    for kind in judges.JUDGES.own():
        file = f"{NAME}.judges.{kind.replace('-', '_')}"
        found[f"verdicts {file}"] = lambda kind=kind: judges.judge_recipe(  # type: ignore[misc]
            f"{kind}={source}", 0.5, ["hazard"]
        )
    found["verdicts of an ensemble"] = lambda: judges.judge_recipe(
        f"any(clip={source},vit={source})", 0.5, ["hazard"]
    )
    for name in adherence.ADHERENCES.own():
        file = f"{NAME}.metrics.adherence.{name}"
        found[f"alignment {file}"] = lambda name=name: adherence_recipe(f"{name}={source}", "")  # type: ignore[misc]
    for name in features.FEATURE_KINDS.own():
        file = f"{NAME}.metrics.features.{name}"
        found[f"features {file}"] = lambda name=name: features_recipe(f"{name}={source}", "")  # type: ignore[misc]
    for name in distances.DISTANCES.own():
        file = f"{NAME}.metrics.distances.{name}"
        found[f"scorecards {file}"] = lambda name=name: quality_recipe("vit=miniature", "", name)  # type: ignore[misc]
    for spec in (str(photos), f"self:{folder / 'prompts.txt'}", "miniature:scan"):
        found[f"tuning on {spec}"] = lambda spec=spec: dataset_recipe(spec)  # type: ignore[misc]
    for kind in guidance.GUIDANCES.own():
        file = f"{NAME}.generation.guidance.{kind.replace('-', '_')}"
        aligned = folder / kind
        aligned.mkdir()
        (aligned / "alignment.json").write_text(json.dumps({"name": kind}), encoding="utf-8")
        guidance.save_guidance(GUIDANCES[kind](), aligned)
        found[f"images {file}"] = lambda at=aligned: drawn(  # type: ignore[misc]
            session_of(folder, candidate=str(at)), ALIGNED
        )
    return found


def _sld() -> Any:
    return guidance.GUIDANCES.get("sld")(
        safety_prompt="x", warmup=1, scale=1.0, threshold=0.0, momentum_scale=0.0, momentum_beta=0.0
    )


def _blend() -> Any:
    return guidance.GUIDANCES.get("safe-latent-blend")(
        weight=1.0, tau=0.0, rank=1, threshold=None, harmful=("a",), anchors=("b",)
    )


def _safree() -> Any:
    method = alignment.method("safree")
    given = method.parse({}).model_dump(exclude={"subspace"})
    return guidance.GUIDANCES.get("safree")(concepts=("a",), **given)  # type: ignore[call-arg]


def _spm() -> Any:
    class Spm(guidance.GUIDANCES.get("spm")):  # type: ignore[misc]
        def write_files(self, folder: Path) -> None:
            """Adapters are not read for a key."""

    return Spm(concepts={"a": ("a",)}, alpha=1.0, transport="paper", metric="both", weights="0")


GUIDANCES: dict[str, Callable[[], Any]] = {
    "sld": _sld,
    "safe-latent-blend": _blend,
    "safree": _safree,
    "spm": _spm,
}
