"""The closed-form edit against an independent least-squares solver, and its limits."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spqr_checks.alignment.training.closed_form import edit

IN, OUT = 6, 4


def problem(seed: int, erased: int, kept: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return normal(OUT, IN), normal(erased, IN), normal(erased, IN), normal(kept, IN)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    erased=st.integers(0, 5),
    kept=st.integers(0, 5),
    e=st.floats(0, 10),
    p=st.floats(0, 10),
    lam=st.floats(0.01, 10),
)
def test_the_edit_is_the_least_squares_solution(
    seed: int, erased: int, kept: int, e: float, p: float, lam: float
) -> None:
    w0, c, g, k = problem(seed, erased, kept)
    edited = edit(w0, c, g, k, erase_scale=e, preserve_scale=p, lam=lam)
    # stacked rows sqrt(weight) · (embedding → wanted value), solved by LAPACK's gelsd
    a = np.concatenate([e**0.5 * c.numpy(), p**0.5 * k.numpy(), lam**0.5 * np.eye(IN)])
    b = np.concatenate(
        [e**0.5 * (g @ w0.T).numpy(), p**0.5 * (k @ w0.T).numpy(), lam**0.5 * w0.T.numpy()]
    )
    solution = np.linalg.lstsq(a, b, rcond=None)[0].T
    np.testing.assert_allclose(edited.numpy(), solution, atol=1e-7)


def test_without_anything_to_erase_the_matrix_stays() -> None:
    w0, c, g, k = problem(0, 0, 4)
    edited = edit(w0, c, g, k, erase_scale=1, preserve_scale=1, lam=0.5)
    torch.testing.assert_close(edited, w0)


def test_a_huge_erase_scale_gives_the_guide_s_value() -> None:
    w0, c, g, k = problem(1, 2, 3)
    edited = edit(w0, c, g, k, erase_scale=1e9, preserve_scale=1, lam=0.5)
    torch.testing.assert_close(c @ edited.T, g @ w0.T, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(c @ w0.T, g @ w0.T, atol=0.1)


def test_a_huge_preserve_scale_keeps_the_values_of_prompts_to_keep() -> None:
    w0, c, g, k = problem(2, 2, 3)
    loose = edit(w0, c, g, k, erase_scale=10, preserve_scale=0, lam=0.5)
    tight = edit(w0, c, g, k, erase_scale=10, preserve_scale=1e9, lam=0.5)
    torch.testing.assert_close(k @ tight.T, k @ w0.T, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(k @ loose.T, k @ w0.T, atol=0.1)
    # and the erased prompts still move as far as that allows
    assert (c @ tight.T - g @ w0.T).norm() < (c @ w0.T - g @ w0.T).norm()


def test_a_huge_lam_keeps_the_matrix() -> None:
    w0, c, g, k = problem(3, 2, 2)
    edited = edit(w0, c, g, k, erase_scale=1, preserve_scale=1, lam=1e12)
    torch.testing.assert_close(edited, w0)
