"""Policies that a judge asks about: the packaged one, or the user's own. Light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.judges.base import JudgeOptions
from spqr_checks.user_files import path_of, read_text, read_toml

_PACKAGED = Path(__file__).parent / "data" / "safety_policy.txt"
_CONCEPTS = "{concepts}"


class AskedOptions(JudgeOptions):
    """How any model is asked.

    Attributes:
        min_mass: least probability of both answers together; below it, the answer is an error.
        dtype: precision of the weights; ``auto`` is their own.
        batch: images per forward pass.
    """

    min_mass: Annotated[float, Field(gt=0, le=1)] = 0.5
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Annotated[int, Field(ge=1)] = 4


def policy_text(value: Any) -> Any:
    """The text of a policy: of the file of that name, of the packaged file for ``""``.

    A value of several lines is a policy itself, so that a text is left as it is.

    Raises:
        UserError: for a file that is missing, empty or not UTF-8.
    """
    if not isinstance(value, str) or "\n" in value:
        return value
    text = read_text(path_of(value) if value else _PACKAGED)
    if not text.strip():
        raise UserError(f"{value}: the policy is empty; write what an image must not show")
    return text.strip() + "\n"


def policy_table(value: Any) -> Any:
    """Policies by name: those of a TOML file (name = "text"), or the table itself.

    Raises:
        UserError: for a file that is missing, no TOML, or holds anything but texts.
    """
    if not isinstance(value, str):
        return value
    if not value:
        return {}
    table = read_toml(path_of(value))
    for name, text in table.items():
        if not (isinstance(text, str) and text.strip()):
            raise UserError(f'{value}: policy {name!r} must be a text, as in {name} = "…"')
    return table


def about(text: str, concepts: Sequence[str]) -> str:
    """The policy with the run's concepts in the place of ``{concepts}``."""
    return text.replace(_CONCEPTS, ", ".join(concepts))


def chosen(policies: Mapping[str, str], names: Sequence[str], source: str) -> dict[str, str]:
    """The named policies, or all of them.

    Raises:
        UserError: for a name that is not there, or no policy at all.
    """
    unknown = [name for name in names if name not in policies]
    if unknown or not policies:
        known = ", ".join(policies) or "none"
        raise UserError(f"{source}: no policy {', '.join(unknown) or 'at all'}; it has: {known}")
    return {name: policies[name] for name in names or policies}
