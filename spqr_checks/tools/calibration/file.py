"""calibration.json: how often judges err on labelled images, for the very judges it was made with.

Written by `spqr judge calibrate`, read by runs with ``calibration`` set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, canonical, digest
from spqr_checks.scoring.comparable import differences
from spqr_checks.scoring.strict_json import MalformedError, loads, validated
from spqr_checks.statistics.calibration import Calibration
from spqr_checks.statistics.intervals import clopper_pearson

if TYPE_CHECKING:
    from rich.console import Console

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
    """How far two judges agree.

    Attributes:
        alike: images of which both say the same.
        kappa, interval: Cohen's κ; None where a judge says one thing of all images, which leaves
            it at 0, or undefined, whatever the other says.
    """

    judges: tuple[str, str]
    alike: int
    kappa: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Written:
    """One judge as `to_json` writes it."""

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


def to_json(
    records: Sequence[JudgeRecord], agreements: Sequence[Agreement], labels: Mapping[str, Json]
) -> str:
    """The file's text; equal arguments give equal bytes.

    Args:
        labels: what the labels were: file name, digest, number of images.
    """
    judges = [
        _Written(
            record.judge,
            dict(record.recipe),
            digest(record.recipe),
            counts := _counts(record),
            _rate(*counts[:2]),
            _rate(*counts[2:]),
            dict(record.concepts),
        )
        for record in records
    ]
    file = _File(VERSION, dict(labels), tuple(judges), [asdict(one) for one in agreements])
    text = json.dumps(asdict(file), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _counts(record: JudgeRecord) -> Counts:
    found = record.calibration
    return found.flagged, found.unsafe, found.passed, found.safe


def _rate(k: int, n: int) -> dict[str, Json]:
    return {"value": k / n, "interval": clopper_pearson(k, n, LEVEL), "n": n}


def calibration_of(path: Path, recipe: Mapping[str, Json]) -> Calibration:
    """The calibration of the judge with this recipe.

    Raises:
        UserError: for a file that cannot be read or is no calibration, and one that was made with
            another judge, threshold, option or version; names the first difference.
    """
    judges = _read(path)
    for written in judges:
        if written.recipe_digest == digest(recipe):
            return Calibration(*written.counts)
    alike = next(
        (one for one in judges if one.recipe.get("judge") == recipe.get("judge")), judges[0]
    )
    used = json.loads(canonical(recipe))
    places = ("the file", "this run")
    first = next(differences("judge", alike.recipe, used, places), "its recipe differs")
    raise UserError(
        f"{path}: it was made with another judge than this run's: {first}.\n"
        "Calibrate the judge of this run with spqr judge calibrate."
    )


def _read(path: Path) -> tuple[_Written, ...]:
    try:
        file = validated(_File, loads(path.read_text(encoding="utf-8")))
        if file.version != VERSION:
            raise MalformedError(f"version {file.version} is not {VERSION}")
        if not file.judges:
            raise MalformedError("no judge in it")
        for written in file.judges:
            Calibration(*written.counts)  # refuses what cannot be
            if written.recipe_digest != digest(written.recipe):
                raise MalformedError("field 'recipe_digest' is not that of the recipe")
    except OSError as error:
        raise UserError(f"{path}: the calibration cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:  # also malformed and not UTF-8
        raise UserError(
            f"{path}: no calibration by spqr judge calibrate: {error}; make it again"
        ) from None
    return file.judges


def show(records: Sequence[JudgeRecord], agreements: Sequence[Agreement], console: Console) -> None:
    """Prints sensitivity and specificity of every judge, overall and by concept, and κ."""
    from rich.table import Table
    from rich.text import Text

    def text(written: str) -> Text:
        return Text(written, overflow="fold")  # never markup: names may hold brackets

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("judge, concept", overflow="fold", min_width=16)
    for what in ("sensitivity", "specificity"):
        table.add_column(what, justify="right", no_wrap=True)
        table.add_column(f"{100 * LEVEL:g} %", no_wrap=True)
    for record in records:
        within = {f"  {name}": counts for name, counts in record.concepts.items()}
        for name, counts in {record.judge: _counts(record), **within}.items():
            table.add_row(*map(text, (name, *_shown(*counts[:2]), *_shown(*counts[2:]))))
    console.print(table)
    for one in agreements:
        said = "says nothing, since one of them says the same of every image"
        if one.kappa is not None and one.interval is not None:
            said = f"{one.kappa:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
        names, images = " and ".join(one.judges), sum(_counts(records[0])[1::2])
        line = f"Cohen's kappa of {names}: {said}; alike on {one.alike} of {images}"
        console.print(text(line), soft_wrap=True)


def _shown(k: int, n: int) -> tuple[str, str]:
    if not n:
        return "-", ""
    low, high = clopper_pearson(k, n, LEVEL)
    return f"{k}/{n} {100 * k / n:.0f} %", f"{100 * low:.0f} to {100 * high:.0f}"
