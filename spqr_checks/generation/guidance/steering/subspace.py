"""The concept subspace: in which directions prompts with a concept differ from those without.

A reconstruction of ours: the paper (see ``safe_latent_blend``) encodes a safe version of the
prompt, but its recipe is not public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode

_BATCH = 32
_NEGLIGIBLE = 1e-9
"""Squared singular values below this share of the largest are rounding errors."""


@dataclass(frozen=True)
class Subspace:
    """Directions of a concept, and the mean state without it.

    Attributes:
        basis: orthonormal rows, shape (rank, width).
        centre: shape (tokens, width), or (width,) for pooled embeddings.
    """

    basis: Tensor
    centre: Tensor

    @classmethod
    def spanned(cls, gram: Tensor, centre: Tensor, rank: int) -> Subspace:
        """The subspace of the leading right singular vectors of differences D.

        Args:
            gram: Dᵀ D in double precision, shape (width, width); its eigenvectors are those
                singular vectors, and it is small where D is long.
            rank: at most; directions in which nothing differs are left out.

        Raises:
            UserError: if nothing differs at all.
        """
        values, vectors = torch.linalg.eigh(gram)
        leading = values.flip(0)[:rank]
        if not bool(leading[0] > 0):
            raise UserError(
                "the harmful prompts are encoded like their anchors, so they show no concept; "
                "give anchors that differ"
            )
        kept = int((leading > _NEGLIGIBLE * leading[0]).sum())
        return cls(vectors.flip(1)[:, :kept].T.float().contiguous(), centre.float())

    def within(self, states: Tensor) -> Tensor:
        """The part of (states − centre) that lies in the subspace; shape of ``states``."""
        basis = self.basis.to(states.device)
        apart = states.float() - self.centre.to(states.device)
        return (apart @ basis.T) @ basis

    def without(self, states: Tensor) -> Tensor:
        """The states, shape (n, …, width), with their part in the subspace taken out.

        What remains in its directions is the centre: the mean of the prompts without the concept.
        """
        return (states.float() - self.within(states)).to(states.dtype)

    def similarity(self, states: Tensor) -> Tensor:
        """Cosine between (states − centre), over all tokens, and its part within; shape (n,)."""
        apart = (states.float() - self.centre.to(states.device)).flatten(1).norm(dim=1)
        inside = self.within(states).flatten(1).norm(dim=1)
        return torch.where(apart > 0, inside / apart.clamp(min=1e-30), torch.zeros_like(apart))


def concept_subspaces(
    pipe: DiffusionPipeline, harmful: Sequence[str], anchors: Sequence[str], rank: int
) -> tuple[Subspace, Subspace | None]:
    """Subspaces of token states and, for SDXL, of pooled embeddings.

    Token states of each harmful prompt are centred on those of its anchor, position by position;
    all positions count alike. Raises UserError if harmful prompts and anchors do not differ.
    """
    tokens, pooled = _Differences(), _Differences()
    for start in range(0, len(harmful), _BATCH):
        with_concept = encode(pipe, harmful[start : start + _BATCH])
        without = encode(pipe, anchors[start : start + _BATCH])
        tokens.add(with_concept.hidden, without.hidden)
        if with_concept.pooled is not None and without.pooled is not None:
            pooled.add(with_concept.pooled, without.pooled)
    return tokens.subspace(rank), pooled.subspace(rank) if pooled.n else None


class _Differences:
    """Dᵀ D of the differences and the sum of the anchors, gathered batch by batch."""

    def __init__(self) -> None:
        self.n = 0
        self.gram = torch.zeros((), dtype=torch.float64)
        self.total = torch.zeros((), dtype=torch.float64)

    def add(self, with_concept: Tensor, anchors: Tensor) -> None:
        a, b = with_concept.double().cpu(), anchors.double().cpu()
        rows = (a - b).reshape(-1, a.shape[-1])
        self.gram = self.gram + rows.T @ rows
        self.total = self.total + b.sum(0)
        self.n += len(b)

    def subspace(self, rank: int) -> Subspace:
        return Subspace.spanned(self.gram, self.total / self.n, rank)
