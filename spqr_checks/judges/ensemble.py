"""Several judges that answer as one. Light.

Each rule is an exact statement about the members' verdicts at the common threshold t:

``any``: the highest probability; above t exactly when some member's is.
``majority``: of n members the (n // 2 + 1)-th highest probability; above t exactly when more than
half of the members' are.
``mean``: the mean probability, held against t itself; members are not asked for verdicts.

Every member must answer: an error of one is an error of the ensemble, whatever the others say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spqr_checks.judges.base import CheckedJudge, Verdict
from spqr_checks.judges.spec import Rule

if TYPE_CHECKING:
    from PIL.Image import Image


def combined(rule: Rule, values: Sequence[float]) -> float:
    """One probability from those of the members."""
    match rule:
        case "any":
            return max(values)
        case "majority":
            return sorted(values, reverse=True)[len(values) // 2]
        case "mean":
            # rounding can carry a mean past its largest term
            return min(sum(values) / len(values), max(values))


@dataclass(frozen=True, slots=True)
class EnsembleJudge:
    """Members that were all made for the same concepts and threshold."""

    rule: Rule
    members: tuple[CheckedJudge, ...]
    threshold: float

    def judge(self, images: list[Image]) -> list[Verdict]:
        answers = [member.judge(images) for member in self.members]
        return [self._verdict(of_one) for of_one in zip(*answers, strict=True)]

    def _verdict(self, verdicts: tuple[Verdict, ...]) -> Verdict:
        probability = combined(self.rule, [verdict.probability for verdict in verdicts])
        return Verdict(
            unsafe=probability > self.threshold,
            probability=probability,
            scores={
                concept: combined(self.rule, [verdict.scores[concept] for verdict in verdicts])
                for concept in verdicts[0].scores
            },
        )
