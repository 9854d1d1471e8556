"""The concept subspace: what is taken out of a prompt, and what stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.generation.guidance.steering.subspace import Subspace, concept_subspaces

WIDTH, TOKENS = 6, 3


def made(seed: int, rank: int) -> tuple[Subspace, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(20, WIDTH, generator=generator).double()
    centre = torch.randn(TOKENS, WIDTH, generator=generator)
    return Subspace.spanned(rows.T @ rows, centre, rank), generator


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, WIDTH))
def test_it_is_a_projection(seed: int, rank: int) -> None:
    subspace, generator = made(seed, rank)
    assert subspace.basis.shape == (rank, WIDTH)
    torch.testing.assert_close(subspace.basis @ subspace.basis.T, torch.eye(rank))
    states = torch.randn(4, TOKENS, WIDTH, generator=generator)
    safe = subspace.without(states)
    torch.testing.assert_close(subspace.without(safe), safe, atol=1e-5, rtol=1e-5)
    # what remains in its directions is the centre
    torch.testing.assert_close(
        safe @ subspace.basis.T,
        (subspace.centre @ subspace.basis.T).expand(4, -1, -1),
        atol=1e-5,
        rtol=1e-4,
    )
    alike = subspace.similarity(states)
    assert bool(((alike >= 0) & (alike <= 1 + 1e-5)).all())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, WIDTH - 1))
def test_an_orthogonal_prompt_is_unchanged_and_not_alike(seed: int, rank: int) -> None:
    subspace, generator = made(seed, rank)
    apart = torch.randn(4, TOKENS, WIDTH, generator=generator)
    apart = apart - (apart @ subspace.basis.T) @ subspace.basis
    states = subspace.centre + apart
    torch.testing.assert_close(subspace.without(states), states, atol=1e-5, rtol=1e-5)
    assert float(subspace.similarity(states).max()) < 1e-4
    # and one that lies within is all alike
    inside = subspace.centre + torch.randn(4, TOKENS, rank, generator=generator) @ subspace.basis
    torch.testing.assert_close(subspace.similarity(inside), torch.ones(4))
    torch.testing.assert_close(
        subspace.without(inside), subspace.centre.expand(4, -1, -1), atol=1e-5, rtol=1e-5
    )


def test_the_centre_itself_is_alike_to_nothing() -> None:
    subspace, _ = made(0, 2)
    assert float(subspace.similarity(subspace.centre[None])) == 0


def test_the_leading_directions_are_those_of_the_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(30, WIDTH, generator=generator).double() * torch.arange(1, WIDTH + 1)
    subspace = Subspace.spanned(rows.T @ rows, torch.zeros(WIDTH), 2)
    leading = torch.linalg.svd(rows, full_matrices=False).Vh[:2].float()
    torch.testing.assert_close(subspace.basis.T @ subspace.basis, leading.T @ leading)


def test_directions_in_which_nothing_differs_are_left_out() -> None:
    row = torch.zeros(1, WIDTH, dtype=torch.float64)
    row[0, 2] = 3
    subspace = Subspace.spanned(row.T @ row, torch.zeros(WIDTH), 4)
    torch.testing.assert_close(subspace.basis.abs(), (row / 3).float())


def test_harmful_prompts_that_are_their_own_anchors_show_no_concept(pipe: Any) -> None:
    with pytest.raises(UserError, match="give anchors that differ"):
        concept_subspaces(pipe, ["a red star"], ["a red star"], 2)


def test_a_harmful_prompt_becomes_its_anchor_where_it_is_the_only_one(pipe: Any) -> None:
    tokens, pooled = concept_subspaces(pipe, ["a red triangle"], ["a blue square"], 16)
    assert pooled is None
    harmful, anchor = encode(pipe, ["a red triangle", "a blue square"]).hidden
    assert float((harmful - anchor).abs().max()) > 0.1
    torch.testing.assert_close(tokens.without(harmful[None])[0], anchor, atol=1e-4, rtol=1e-4)


def test_many_prompts_are_gathered_in_batches(pipe: Any) -> None:
    harmful = [f"a red triangle, image {i}" for i in range(40)]
    anchors = [f"a blue square, image {i}" for i in range(40)]
    tokens, _ = concept_subspaces(pipe, harmful, anchors, 3)
    a, b = encode(pipe, harmful).hidden.double(), encode(pipe, anchors).hidden.double()
    rows = (a - b).reshape(-1, a.shape[-1])
    leading = torch.linalg.svd(rows, full_matrices=False).Vh[:3].float()
    torch.testing.assert_close(
        tokens.basis.T @ tokens.basis, leading.T @ leading, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(tokens.centre, b.mean(0).float(), atol=1e-4, rtol=1e-4)


def test_stable_diffusion_xl_has_a_subspace_of_pooled_embeddings(xl: Any) -> None:
    tokens, pooled = concept_subspaces(xl, ["a red triangle"], ["a blue square"], 2)
    assert tokens.centre.shape == (32, 32)
    assert pooled is not None
    assert pooled.centre.shape == (12,)
    assert pooled.basis.shape == (1, 12)
