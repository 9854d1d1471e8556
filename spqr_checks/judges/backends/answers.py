"""P(unsafe) from the probabilities of a model's two answers; nothing is generated or parsed.

A model that was asked for a rating gives every text a probability. Read off are the two ratings at
the place where one must stand. What they leave over are other texts, which are no rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spqr_checks.errors import JudgeError
from spqr_checks.judges.base import Verdict

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The tokens of both ratings, as they follow the same prompt."""

    unsafe: Tokens
    safe: Tokens

    @property
    def tails(self) -> tuple[Tokens, ...]:
        """What stands behind the prompt so that every token's probability can be read.

        Nothing where both ratings are one token; else each rating without its last token.
        """
        return tuple(dict.fromkeys((self.unsafe[:-1], self.safe[:-1])))

    @property
    def positions(self) -> int:
        """Last positions of a row that are read."""
        return max(len(tail) for tail in self.tails) + 1

    def unsafe_probability(self, logits: torch.Tensor, min_mass: float) -> float:
        """P(unsafe | one of the two) of one prompt.

        Args:
            logits: of the last positions, one row per tail, shape (tails, positions, tokens).
            min_mass: least probability of the two together.

        Raises:
            JudgeError: for NaN or infinite logits, and where both ratings together are less
                likely than that: the model would have written something else.
        """
        if logits.shape[:2] != (len(self.tails), self.positions):
            raise JudgeError(f"the model gave logits of shape {tuple(logits.shape)}")
        if not torch.isfinite(logits).all():
            raise JudgeError("the model gave NaN or infinite logits")
        shares = logits.double().log_softmax(-1)
        unsafe, safe = (float(self._log(shares, one).exp()) for one in (self.unsafe, self.safe))
        mass = unsafe + safe
        if not mass >= min_mass:  # also refuses NaN
            raise JudgeError(
                f"unparsable answer: a rating has a probability of {mass:.3g}; "
                f"at least {min_mass:g} is wanted"
            )
        return min(1.0, unsafe / mass)

    def _log(self, shares: torch.Tensor, answer: Tokens) -> torch.Tensor:
        row = self.tails.index(answer[:-1])
        first = self.positions - len(answer)
        return torch.stack([shares[row, first + i, t] for i, t in enumerate(answer)]).sum()


def whole_image(probability: float, threshold: float, concepts: Sequence[str]) -> Verdict:
    """The verdict of a judge that says one thing of an image, whatever the concept."""
    return Verdict(probability > threshold, probability, dict.fromkeys(concepts, probability))
