"""Latent Guard: its arithmetic, written out once more, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spqr_checks.guards.folder import read_record
from spqr_checks.guards.latent_guard import contrastive_loss, head, scores
from spqr_checks.guards.registry import load_guards

pytestmark = pytest.mark.usefixtures("one_thread")


def test_scores_are_scaled_cosines_of_attended_values() -> None:
    torch.manual_seed(0)
    maps = head(width=6, heads=2, head_width=3, joint_width=4).double()
    states, concepts = torch.randn(3, 5, 6).double(), torch.randn(2, 6).double()
    w = {name: tensor.detach().numpy() for name, tensor in maps.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    expected = np.empty((3, 2))
    for i, tokens in enumerate(states.numpy()):
        keys, values = linear("key", tokens), linear("value", tokens)
        for j, concept in enumerate(concepts.numpy()):
            query = linear("query", concept)
            parts = []
            for one in (slice(0, 3), slice(3, 6)):
                logits = keys[:, one] @ query[one] / np.sqrt(3)
                share = np.exp(logits - logits.max())
                parts.append((share / share.sum()) @ values[:, one])
            said, wanted = linear("prompt", np.concatenate(parts)), linear("concept", query)
            cosine = said @ wanted / np.linalg.norm(said) / np.linalg.norm(wanted)
            expected[i, j] = cosine / 0.07
    found = scores(maps, states, concepts, heads=2)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_the_loss_contrasts_prompts_with_concepts_and_concepts_with_prompts() -> None:
    rng = np.random.default_rng(0)
    harmful, benign = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    expected = 0.0
    for i in range(3):
        row = np.concatenate([harmful[i], benign.max(1)])
        column = np.concatenate([harmful[:, i], benign[:, i]])
        for logits in (row, column):
            expected -= (logits[i] - np.log(np.exp(logits).sum())) / 3
    found = contrastive_loss(torch.from_numpy(harmful), torch.from_numpy(benign))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_it_learns_to_tell_concepts_from_what_is_near_them(
    trained: Callable[[str], Path],
) -> None:
    name = "latent-guard"
    blocked, harmful, passed, benign = read_record(str(trained(name)), name).held_out
    assert blocked / harmful >= 0.8
    assert passed / benign >= 0.8


def test_an_answer_does_not_depend_on_the_prompts_beside_it(
    trained: Callable[[str], Path],
) -> None:
    (guard,) = load_guards([f"latent-guard={trained('latent-guard')}"], (), "cpu", {})
    prompts = ["a red hazard", "a green moon, small", "x"]
    together = guard.answer(prompts)
    alone = [guard.answer([prompt])[0] for prompt in prompts]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], rel=1e-4)
