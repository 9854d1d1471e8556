"""Candidates that are guidance: from the alignment to the fine-tuned state, on a tiny pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch

from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.generation.guidance.base import guidance_of
from spqr_checks.generation.sampling import generate
from spqr_checks.matrix import ALIGNED, BASE, State, Tuning
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.states import States

TUNING = Tuning("lite", "stripes", 0)
TUNED = State("aligned", TUNING)
SAMPLER = Sampler(steps=2, guidance=3.0, batch=2)
PROMPTS, SEEDS = ["a red triangle", "a green circle"], [0, 1]
OPTIONS = {"sld": {"preset": "max"}, "safe-latent-blend": {"weight": 1.0, "tau": 0.0}}
candidates = pytest.mark.parametrize("name", list(OPTIONS))


def states_of(folder: Path, base: Path, name: str, **settings: Any) -> States:
    given = {
        "datasets": "miniature:stripes",
        "dataset_limit": 4,
        "method": {name: OPTIONS[name]},
        "profile.lite.steps": 2,
        "profile.lite.batch": 2,
        "profile.lite.learning_rate": 1e-2,
        "sampler": SAMPLER.model_dump(),
    }
    return runs.states_of(folder, base, f"method:{name}", **given | settings)


def made(states: States, state: State) -> Any:
    """The state as a pipeline, its units made first."""
    engine = LocalEngine(states.run.store, "cpu", 1, lambda: ())
    for unit in states.needs(state):
        engine.require(unit)
    return states.pipeline(state)


def pixels(pipe: Any) -> np.ndarray:
    return np.stack([np.asarray(i) for i in generate(pipe, PROMPTS, SEEDS, SAMPLER)])


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "attach", "trains"),
    [
        ("sld", "auto", "lora"),
        ("sld", "base", "denoiser"),
        ("safe-latent-blend", "released", "lora"),
        ("safe-latent-blend", "released", "denoiser"),
    ],
)
def test_a_fine_tuned_state_is_the_bare_network_s_fine_tuning_under_guidance(
    tiny_pipeline_dir: Path, tmp_path: Path, name: str, attach: str, trains: str
) -> None:
    states = states_of(
        tmp_path, tiny_pipeline_dir, name, attach=attach, **{"profile.lite.trains": trains}
    )
    pipe = made(states, TUNED)
    guidance = guidance_of(pipe)
    assert guidance is not None
    assert guidance.kind == name
    on_released = attach == "released"
    assert (states.attaches_to(TUNED) == ALIGNED) is on_released

    # the same fine-tuning of the base itself, by hand
    bare = load_pipeline(str(tiny_pipeline_dir))
    profile = states.run.settings.profile["lite"]
    data = states.data(states.run.datasets["stripes"], 4)
    trainer.finetune(bare, data, profile, 0, tmp_path / "by hand", 1)
    trainer.apply_tuning(bare, tmp_path / "by hand")
    assert same_weights(copy_state(pipe), copy_state(bare))
    unguided = pixels(bare)
    assert not np.array_equal(pixels(pipe), unguided)
    # the guidance is all that tells them apart: without it the images are the same but for
    # rounding where a difference of weights was added
    del pipe._spqr_guidance
    assert np.abs(pixels(pipe).astype(int) - unguided).max() <= (0 if trains == "lora" else 2)


@pytest.mark.heavy
@candidates
def test_the_candidate_itself_differs_from_the_base_by_its_guidance_alone(
    tiny_pipeline_dir: Path, tmp_path: Path, name: str
) -> None:
    states = states_of(tmp_path, tiny_pipeline_dir, name)
    aligned = made(states, ALIGNED)
    weights, guided = copy_state(aligned), pixels(aligned)
    base = made(states, BASE)
    assert guidance_of(base) is None
    assert same_weights(weights, copy_state(base))
    assert not np.array_equal(guided, pixels(base))


@pytest.mark.heavy
def test_guidance_without_strength_aligned_nothing(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spqr_checks.generation.guidance.sld import SldGuidance

    monkeypatch.setattr(SldGuidance, "acts", False)
    states = states_of(tmp_path, tiny_pipeline_dir, "sld")
    with pytest.raises(UserError, match="identical to its base"):
        made(states, ALIGNED)
