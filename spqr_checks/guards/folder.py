"""The folder of a trained guard: its text encoder, its own weights, and ``guard.json``. Light."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.guards.base import TrainingRequest
from spqr_checks.hashing import Json, digest
from spqr_checks.models.sources import resolve, source_recipe
from spqr_checks.user_files import MOST_CONFIGURATION, path_of, read_text

FILE, WEIGHTS = "guard.json", "guard.safetensors"
_HELD_OUT = 5


class Record(BaseModel):
    """What ``guard.json`` says.

    Attributes:
        guard: name of its kind.
        concepts: what it was trained to block.
        threshold: scores above it are blocked, unless options say otherwise.
        training: options of the training.
        held_out: answers for prompts that it did not learn from: blocked and number of the
            harmful ones, let through and number of the benign ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    guard: str
    concepts: tuple[str, ...]
    threshold: float
    training: dict[str, Any]
    held_out: tuple[int, int, int, int]


def read_record(source: str, name: str) -> Record:
    """What a guard's folder says of itself.

    Raises:
        UserError: for a folder without a readable record, and the record of another guard.
    """
    again = f"Make one with `spqr guard train {name} --out DIR`."
    path = path_of(source) / FILE
    if not path.is_file():
        raise UserError(f"{source}: no folder of a trained guard: {FILE} is missing. {again}")
    try:
        record = TypeAdapter(Record).validate_json(read_text(path, MOST_CONFIGURATION))
    except ValidationError as error:
        raise UserError(f"{path}: {refused_field(error)}. {again}") from None
    if record.guard != name:
        raise UserError(f"{source}: holds a {record.guard}, not a {name}; write {record.guard}=DIR")
    return record


def contents(name: str) -> Callable[[str], Mapping[str, Json]]:
    """What `GuardKind.contents` is for trained guards: digests of all files, the record read."""

    def digests(source: str) -> Mapping[str, Json]:
        read_record(source, name)
        return source_recipe(str(resolve(source)))

    return digests


def split(request: TrainingRequest) -> tuple[TrainingRequest, TrainingRequest]:
    """Prompts to learn from, and every fifth, by a hash of its text, to set the threshold on.

    Raises:
        UserError: if either part would have no harmful or no benign prompt.
    """

    def held(text: str) -> bool:
        return int(digest(text)[:8], 16) % _HELD_OUT == 0

    def part(wanted: bool) -> TrainingRequest:
        harmful = tuple(pair for pair in request.harmful if held(pair[1]) is wanted)
        benign = tuple(text for text in request.benign if held(text) is wanted)
        return replace(request, harmful=harmful, benign=benign)

    return part(False), part(True)


def best_threshold(harmful: Sequence[float], benign: Sequence[float]) -> float:
    """The score that tells the two best apart (Youden 1950, Cancer 3:32).

    Scores above it are blocked. Between the scores that do equally well, the middle is taken.
    """
    asking, passing = np.sort(harmful), np.sort(benign)
    found = np.unique(np.concatenate([asking, passing]))
    cuts = np.concatenate([found[:1] - 1.0, (found[:-1] + found[1:]) / 2])
    missed = np.searchsorted(asking, cuts, side="right") / len(asking)
    youden = np.searchsorted(passing, cuts, side="right") / len(passing) - missed
    equal = cuts[youden >= np.max(youden) - 1e-12]
    return float(equal[len(equal) // 2])


def finish(
    out: Path,
    guard: str,
    request: TrainingRequest,
    scores: Callable[[Sequence[str]], list[float]],
    training: BaseModel,
) -> None:
    """Sets the threshold on the prompts that were held out, and writes the record.

    Args:
        request: everything that the guard was given.
        scores: the trained guard's, of prompts.
    """
    _, tested = split(request)
    harmful, benign = scores([text for _, text in tested.harmful]), scores(tested.benign)
    threshold = best_threshold(harmful, benign)
    blocked, passed = (s > threshold for s in harmful), (s <= threshold for s in benign)
    record = Record(
        guard=guard,
        concepts=request.concepts,
        threshold=threshold,
        training=training.model_dump(mode="json"),
        held_out=(sum(blocked), len(harmful), sum(passed), len(benign)),
    )
    (out / FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
