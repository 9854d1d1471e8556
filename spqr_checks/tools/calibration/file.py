"""calibration.json: how often judges err on labelled images, for the very judges it was made with.

Written by `spqr judge calibrate`, read by runs with ``calibration`` set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, canonical, digest
from spqr_checks.scoring.differences import differences
from spqr_checks.scoring.serialize import MalformedError, loads, validated
from spqr_checks.statistics.calibration import Calibration
from spqr_checks.statistics.intervals import clopper_pearson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

VERSION = 1
LEVEL = 0.95
Counts = tuple[int, int, int, int]
"""(flagged, unsafe, passed, safe) images."""


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """One judge's answers for the labelled images.

    Attributes:
        judge: how it was named.
        recipe: everything that determines its verdicts; see `judges.registry.judge_recipe`.
        concepts: counts of the images of each concept that labels name.
    """

    judge: str
    recipe: Mapping[str, Json]
    calibration: Calibration
    concepts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's κ of two judges; None where it is undefined."""

    judges: tuple[str, str]
    kappa: float | None
    interval: tuple[float, float] | None


def to_json(
    records: Sequence[JudgeRecord], agreements: Sequence[Agreement], labels: Mapping[str, Json]
) -> str:
    """The file's text; equal arguments give equal bytes.

    Args:
        labels: what the labels were: file name, digest, number of images.
    """
    value = {
        "version": VERSION,
        "labels": dict(labels),
        "judges": [_record(record) for record in records],
        "agreement": [
            {
                "judges": list(one.judges),
                "kappa": one.kappa,
                "interval": None if one.interval is None else list(one.interval),
            }
            for one in agreements
        ],
    }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def calibration_of(path: Path, recipe: Mapping[str, Json]) -> Calibration:
    """The calibration of the judge with this recipe.

    Raises:
        UserError: for a file that cannot be read or is no calibration, and one that was made with
            another judge, threshold, option or version; names the first difference.
    """
    wanted = digest(recipe)
    records = _read(path)
    for record in records:
        if digest(record.recipe) == wanted:
            return record.calibration
    alike = [r for r in records if r.recipe.get("judge") == recipe.get("judge")] or records
    used = json.loads(canonical(recipe))
    places = ("the file", "this run")
    first = next(differences("judge", dict(alike[0].recipe), used, places), "its recipe differs")
    raise UserError(
        f"{path}: it was made with another judge than this run's: {first}.\n"
        "Calibrate the judge of this run with spqr judge calibrate."
    )


def _record(record: JudgeRecord) -> dict[str, Any]:
    calibration = record.calibration
    counts = (calibration.flagged, calibration.unsafe, calibration.passed, calibration.safe)
    return {
        "judge": record.judge,
        "recipe": dict(record.recipe),
        "recipe_digest": digest(record.recipe),
        "counts": list(counts),
        "sensitivity": _rate(calibration.flagged, calibration.unsafe),
        "specificity": _rate(calibration.passed, calibration.safe),
        "concepts": {name: list(found) for name, found in record.concepts.items()},
    }


def _rate(k: int, n: int) -> dict[str, Json]:
    return {"value": k / n, "interval": list(clopper_pearson(k, n, LEVEL)), "n": n}


@dataclass(frozen=True, slots=True)
class _Written:
    """One judge as `_record` writes it."""

    judge: str
    recipe: dict[str, Any]
    recipe_digest: str
    counts: Counts
    sensitivity: dict[str, Any]
    specificity: dict[str, Any]
    concepts: dict[str, Counts]


@dataclass(frozen=True, slots=True)
class _File:
    version: int
    labels: dict[str, Any]
    judges: tuple[_Written, ...]
    agreement: Any


def _read(path: Path) -> list[JudgeRecord]:
    try:
        file = validated(_File, loads(path.read_text(encoding="utf-8")))
        if file.version != VERSION:
            raise MalformedError(f"version {file.version} is not {VERSION}")
        if not file.judges:
            raise MalformedError("no judge in it")
        return [_judge_record(written) for written in file.judges]
    except OSError as error:
        raise UserError(f"{path}: the calibration cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:  # also malformed and not UTF-8
        raise UserError(
            f"{path}: no calibration by spqr judge calibrate: {error}; make it again"
        ) from None


def _judge_record(written: _Written) -> JudgeRecord:
    if written.recipe_digest != digest(written.recipe):
        raise MalformedError("field 'recipe_digest' is not that of the recipe")
    counts = Calibration(*written.counts)
    return JudgeRecord(written.judge, written.recipe, counts, written.concepts)


def show(records: Sequence[JudgeRecord], agreements: Sequence[Agreement], console: Console) -> None:
    """Prints sensitivity and specificity of every judge, overall and by concept, and κ."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("judge, concept", overflow="fold", min_width=16)
    for what in ("sensitivity", "specificity"):
        table.add_column(what, justify="right", no_wrap=True)
        table.add_column(f"{100 * LEVEL:g} %", no_wrap=True)
    for record in records:
        for name, (flagged, unsafe, passed, safe) in _rows(record):
            cells = [name, *_shown(flagged, unsafe), *_shown(passed, safe)]
            table.add_row(*map(_text, cells))
    console.print(table)
    for one in agreements:
        console.print(_text(_said(one)))


def _rows(record: JudgeRecord) -> Iterator[tuple[str, Counts]]:
    overall = record.calibration
    yield record.judge, (overall.flagged, overall.unsafe, overall.passed, overall.safe)
    for name, counts in record.concepts.items():
        yield f"  {name}", counts


def _shown(k: int, n: int) -> tuple[str, str]:
    if not n:
        return "-", ""
    low, high = clopper_pearson(k, n, LEVEL)
    return f"{k}/{n} {100 * k / n:.0f} %", f"{100 * low:.0f} to {100 * high:.0f}"


def _said(one: Agreement) -> str:
    names = " and ".join(one.judges)
    if one.kappa is None or one.interval is None:
        return f"Cohen's kappa of {names}: undefined, both say the same of every image"
    low, high = one.interval
    return f"Cohen's kappa of {names}: {one.kappa:.2f} ({low:.2f} to {high:.2f})"


def _text(text: str) -> Text:
    """Never markup: names may hold brackets."""
    from rich.text import Text

    return Text(text, overflow="fold")
