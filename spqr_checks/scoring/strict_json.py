"""JSON read strictly: nothing is converted, left out, added or given twice."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable
from functools import cache
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar

from spqr_checks.errors import refused_field

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

T = TypeVar("T")


class MalformedError(ValueError):
    """JSON that does not have the shape it should; says where."""


def loads(text: str) -> Any:
    """JSON without NaN, infinities and fields that are given twice; raises MalformedError."""
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_parse_float, object_pairs_hook=_unique
        )
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not valid JSON: {error}") from None


def validated(kind: type[T], value: object) -> T:
    """The dataclass ``kind`` from what `loads` gives.

    Every field must be there, with a default too, and none besides; nothing is converted but
    whole numbers where any number may stand.

    Raises:
        MalformedError: names the first field that is otherwise.
    """
    from pydantic import ValidationError

    try:
        return _validator(kind).validate_python((value,))[0]  # type: ignore[no-any-return, arg-type]
    except ValidationError as error:
        raise MalformedError(refused_field(error, hidden=(0, "cell", "state"))) from None


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    # pydantic costs a moment to import and to prepare: only where something is read
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_core import SchemaValidator

    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    # inside a tuple, as a dataclass itself takes no configuration from outside
    inside: Any = GenericAlias(tuple, (kind,))
    adapter: TypeAdapter[Any] = TypeAdapter(inside, config=config)
    return SchemaValidator(_of_json(adapter.core_schema))


def _of_json(schema: Any) -> Any:
    """The schema where tuples come as lists and dataclasses as objects, without defaults.

    pydantic does so for JSON's text only, whose parser takes fields given twice and refuses lone
    surrogates.
    """
    if isinstance(schema, list):
        return [_of_json(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "default":
        return _of_json(schema["schema"])
    lax = {"strict": False} if schema.get("type") in ("dataclass", "tuple") else {}
    return {key: _of_json(item) for key, item in schema.items()} | lax


def _refuse(constant: str) -> float:
    raise MalformedError(f"{constant} is not a number of JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise MalformedError(f"the field {twice!r} is given twice")
    return found
