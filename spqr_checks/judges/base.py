"""What every judge answers, and the check that it did answer. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import Json

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer for one image.

    Attributes:
        unsafe: whether the image shows any of the concepts.
        probability: P(any of the concepts), in [0, 1].
        scores: concept → probability, in [0, 1].
    """

    unsafe: bool
    probability: float
    scores: Mapping[str, float]

    @classmethod
    def whole(cls, probability: float, threshold: float, concepts: Sequence[str]) -> Verdict:
        """Of a judge that says one thing of an image, whatever the concept."""
        return cls(probability > threshold, probability, dict.fromkeys(concepts, probability))

    @classmethod
    def by_shares(
        cls, shares: torch.Tensor, columns: Mapping[str, list[int]], threshold: float
    ) -> list[Verdict]:
        """One for each row of probabilities, shape (images, choices), that sum to 1.

        Args:
            columns: concept → its columns. An image shows any of the concepts with the
                probability of all their columns together.
        """
        union = sorted({column for own in columns.values() for column in own})
        # rounding can carry a sum past 1
        sums = (shares[:, own].sum(-1).clamp(max=1).tolist() for own in (union, *columns.values()))
        return [
            cls(probability > threshold, probability, dict(zip(columns, scores, strict=True)))
            for probability, *scores in zip(*sums, strict=True)
        ]


class Judge(Protocol):
    """Looks for concepts that it was made for."""

    def judge(self, images: list[Image]) -> list[Verdict]:
        """One verdict per image, in order. Raises JudgeError if it cannot answer for all."""
        ...


class JudgeOptions(BaseModel):
    """Base of a judge's options: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """What a judge is made for.

    Attributes:
        source: folder, file or Hub id of its model; "" where none was given.
        options: validated options of the judge's own class.
        threshold: images whose probability exceeds it are unsafe; in (0, 1).
        concepts: what it is to look for; every verdict has a score for each.
        device: where it computes. A judge of ``device="cpu"`` is given the CPU.
    """

    source: str
    options: BaseModel
    threshold: float
    concepts: tuple[str, ...]
    device: str


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """One kind of judge: how its options are read and how it is loaded.

    Attributes:
        options: its pydantic options; all have defaults.
        load: makes it; imports heavy libraries inside itself.
        source: whether ``NAME=SOURCE`` must name one.
        extra: the extra of this package that installs its packages; None if none is needed.
        packages: distributions whose versions decide its verdicts.
        contents: digests of all files that decide its verdicts, from source and options; None
            stands for `models.sources.source_recipe` of the source. Light.
        device: ``cpu`` for one that computes nowhere else.
        architecture: how the model's class in the source's config.json must end; empty for any.
        knows: raises UserError for a source that cannot tell the concepts; from source, options
            and concepts. Light; None where any concept will do.
        loads_on_meta: whether ``load`` can be asked for the device ``meta``: everything is loaded
            and checked but the values of weights, so that no image is drawn in vain.
    """

    options: type[BaseModel]
    load: Callable[[JudgeRequest], Judge]
    source: Literal["required", "optional"] = "required"
    extra: str | None = None
    packages: tuple[str, ...] = ("torch", "transformers", "tokenizers", "pillow")
    contents: Callable[[str, Any], Mapping[str, Json]] | None = None
    device: Literal["any", "cpu"] = "any"
    architecture: str = ""
    knows: Callable[[str, Any, Sequence[str]], object] | None = None
    loads_on_meta: bool = False


@dataclass(frozen=True, slots=True)
class CheckedJudge:
    """Any judge behind the rule that no answer is no verdict.

    A judge that raises, answers for too few images or for other concepts, or gives a number that
    is no probability is an error. Nothing of that is ever read as safe.
    """

    judge_itself: Judge
    name: str
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image]) -> list[Verdict]:
        """One verdict per image, in order.

        Raises:
            JudgeError: if the judge failed in any way, for any image.
        """
        try:
            verdicts = list(self.judge_itself.judge(images))
            problems = [self._problem(verdict) for verdict in verdicts]
        except UserError:
            raise
        except JudgeError as error:
            said = str(error)  # of a panel, the member has named itself
            raise JudgeError(
                said if said.startswith("judge ") else f"judge {self.name}: {said}"
            ) from error
        except Exception as error:  # whatever a judge raises, or answers of no known kind
            raise JudgeError(
                f"judge {self.name} failed on {len(images)} images: {type(error).__name__}: {error}"
            ) from error
        n, wanted = len(verdicts), len(images)
        if n != wanted:
            raise JudgeError(f"judge {self.name} gave {n} answers for {wanted} images")
        for index, problem in enumerate(problems):
            if problem is not None:
                raise JudgeError(f"judge {self.name}, image {index}: {problem}")
        return verdicts

    def _problem(self, verdict: Verdict) -> str | None:
        if set(verdict.scores) != set(self.concepts):
            return f"answered for {sorted(verdict.scores)}, asked for {sorted(self.concepts)}"
        probability = verdict.probability
        for value in (probability, *verdict.scores.values()):
            if not 0 <= value <= 1:  # NaN is not either
                return f"{value!r} is not a probability"
        if verdict.unsafe is (probability > self.threshold):
            return None
        at = f"at probability {probability} and threshold {self.threshold}"
        return f"unsafe is {verdict.unsafe!r} {at}"
