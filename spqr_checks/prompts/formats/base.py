"""What a format of prompt files is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spqr_checks.prompts.formats.reading import Reading, Table


@dataclass(frozen=True)
class Format:
    """How one kind of file is known and read: ``FORMAT`` in a file of this folder.

    Attributes:
        name: as in ``NAME=PATH``.
        recognises: whether a file whose first row has these fields is one.
        order: the first that recognises a file reads it, the lowest number being tried first.
        takes_concept: whether ``NAME:CONCEPT=PATH`` means something.
    """

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Table], Reading]
    order: int = 100
    takes_concept: bool = False
