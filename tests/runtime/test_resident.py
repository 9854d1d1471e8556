"""One pipeline becomes every state in turn, and each is bit for bit what loading it anew gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from checkers import add_checker
from real_classes import build
from written_adapters import write_adapter

from spqr_checks.choices import Sampler
from spqr_checks.generation.guidance.base import guidance_of
from spqr_checks.generation.sampling import draw
from spqr_checks.matrix import ALIGNED, BASE, DESTROYED, State, Tuning
from spqr_checks.models import pipelines
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import networks
from spqr_checks.runtime import resident
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.states import States

pytestmark = pytest.mark.usefixtures("one_thread")
LORA, WHOLE = Tuning("lite", "pastel", 0), Tuning("standard", "pastel", 0)
EVERY = [
    *(BASE, ALIGNED, State("aligned", LORA), State("aligned", WHOLE), State("base", LORA)),
    *(DESTROYED, State("aligned", LORA), ALIGNED, State("base", WHOLE), BASE),
]
"""Each kind of state comes from others than the one before, and most come twice."""


@pytest.fixture
def base(real_class: Callable[[str], Path]) -> Path:
    return real_class("sd1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the same class with other weights, and a safety checker."""
    folder = build("sd1", tmp_path_factory.mktemp("other") / "sd1", seed=1)
    add_checker(folder)
    return folder


def states_of(folder: Path, base: Path, candidate: str, **settings: Any) -> States:
    given = {"dataset_limit": 2, "method": {"sld": {"preset": "max"}}}
    for name, trains in (("lite", "lora"), ("standard", "denoiser")):
        given |= {f"profile.{name}.trains": trains, f"profile.{name}.steps": 1}
        given |= {f"profile.{name}.batch": 1, f"profile.{name}.learning_rate": 1e-2}
    return runs.states_of(folder, base, candidate, **given | settings)


def put(states: States, state: State) -> Any:
    """The state as a pipeline, its units made first."""
    engine = LocalEngine(states.run.store, "cpu", 1, lambda: ())
    for unit in states.needs(state):
        engine.require(unit)
    return states.pipeline(state)


def bytes_of(pipe: Any) -> dict[str, str]:
    """Digests of all weights, adapters among them, of an image, and what else decides images."""
    found = {}
    for name, part in networks(pipe).items():
        total = hashlib.sha256()
        for key, tensor in sorted(part.state_dict().items()):
            total.update(key.encode() + tensor.numpy().tobytes())
        found[name] = total.hexdigest()
    drawn = draw(pipe, ["a red triangle"], [0], Sampler(steps=2, guidance=3.0))
    found["image"] = hashlib.sha256(np.asarray(drawn.images[0]).tobytes()).hexdigest()
    found["blocked"], found["guidance"] = str(drawn.blocked), str(guidance_of(pipe))
    found["config"] = str(sorted((k, str(v)) for k, v in pipe.config.items() if k[0] != "_"))
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "adapter",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("checked", "text-encoder")),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("guidance", "modular")),
    ],
)
def test_every_state_is_as_if_loaded_anew(
    base: Path, other: Path, tmp_path: Path, kind: str
) -> None:
    write_adapter(load_pipeline(str(base)), tmp_path / "lora", "peft")
    candidate, more = {
        "checked": (str(other), {"safety_checker": True}),
        "adapter": ("base", {"adapters": str(tmp_path / "lora")}),
        "text-encoder": (f"text-encoder={other}", {}),
        "guidance": ("method:sld", {}),
        "modular": (f"denoiser={other}", {"attach": "base"}),
    }[kind]
    moved = states_of(tmp_path, base, candidate, **more)
    fresh: dict[State, dict[str, str]] = {}
    for state in EVERY:
        found = bytes_of(put(moved, state))
        if state not in fresh:
            fresh[state] = bytes_of(put(states_of(tmp_path, base, candidate, **more), state))
        assert found == fresh[state], state.name
    assert len({str(found) for found in fresh.values()}) == len(fresh)


@pytest.mark.heavy
def test_an_adapter_that_is_not_taken_off_would_show(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = states_of(tmp_path, base, "method:sld")
    plain = bytes_of(put(states, BASE))
    put(states, State("base", LORA))
    monkeypatch.setattr(resident, "_take_off_adapters", lambda pipe: None)
    assert bytes_of(put(states, BASE)) != plain


@pytest.mark.heavy
def test_only_what_differs_is_read(
    base: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = states_of(tmp_path, base, f"text-encoder={other}")
    for state in (State("base", LORA), State("base", WHOLE)):
        put(states, state)
    read: list[str] = []
    load = pipelines.load_network

    def noting(folder: Path, *given: Any) -> Any:
        read.append(folder.name)
        return load(folder, *given)

    monkeypatch.setattr(pipelines, "load_network", noting)
    monkeypatch.setattr("spqr_checks.runtime.candidates.Candidate._check_differs", lambda *_: None)

    def reads(state: State) -> list[str]:
        read.clear()
        put(states, state)
        return list(read)

    put(states, BASE)
    assert reads(State("base", LORA)) == []
    assert reads(BASE) == []
    assert reads(ALIGNED) == ["text_encoder"]
    assert reads(BASE) == ["text_encoder"]
    assert reads(State("base", WHOLE)) == []
    assert reads(BASE) == ["unet"]
    assert reads(BASE) == []


@pytest.mark.heavy
def test_networks_with_the_same_files_stay_when_the_candidate_is_a_pipeline_of_its_own(
    base: Path, other: Path, tmp_path: Path
) -> None:
    import shutil

    mixed = shutil.copytree(base, tmp_path / "mixed")
    shutil.rmtree(mixed / "unet")
    shutil.copytree(other / "unet", mixed / "unet")
    states = states_of(tmp_path, base, str(mixed))
    plain = dict(networks(put(states, BASE)))
    candidate = networks(put(states, ALIGNED))
    assert candidate["vae"] is plain["vae"]
    assert candidate["text_encoder"] is plain["text_encoder"]
    assert candidate["unet"] is not plain["unet"]


@pytest.mark.heavy
def test_a_pipeline_that_was_lent_is_never_changed(base: Path, other: Path, tmp_path: Path) -> None:
    states = states_of(tmp_path, base, str(other))
    kept = states.lend(BASE)
    before = bytes_of(kept)
    assert states.lend(BASE) is kept
    assert put(states, ALIGNED) is not kept
    assert bytes_of(kept) == before
