"""What a unit makes, in words that another process of the same run understands. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from spqr_checks.errors import UserError
from spqr_checks.matrix import BASE, State
from spqr_checks.prompts.prompt import PromptGroup

Makes = Literal[
    "weights",
    "tuning",
    "adaptation",
    "attacked",
    "drawn",
    "images",
    "verdicts",
    "adherence",
    "features",
    "data",
]


@dataclass(frozen=True, slots=True)
class Order:
    """One unit of a run. It says what, not how: settings and files are the reader's own.

    Attributes:
        makes: ``weights`` of the candidate by its method, a ``tuning``, what is trained for an
            ``adaptation``, a prompt as ``attacked``, images of a batch as they were ``drawn`` or as
            users see them (``images``), what is read off them (``verdicts``, ``adherence``,
            ``features``), or the features of ``data``.
        state: whose; of a tuning, a state that it leads to.
        group, prompts, seeds, attack: of the batch; of an attacked prompt, that one only.
        spec, limit: of the data set.
    """

    makes: Makes
    state: State = BASE
    group: PromptGroup | None = None
    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    attack: str | None = None
    spec: str = ""
    limit: int | None = None

    def to_json(self) -> str:
        """JSON text; `from_json` reads it."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Raises UserError for what is no order."""
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise UserError(f"not an order of work: {error.errors()[0]['msg']}") from None


_ADAPTER = TypeAdapter(Order)
