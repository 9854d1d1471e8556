"""Scorecards that may stand side by side: measured alike, or refused with the first difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

_WIDTH = 60


def differences(
    what: str, one: Any, other: Any, places: tuple[str, str] = ("one", "the other")
) -> Iterator[str]:
    """Differences of two JSON values, the deepest place named.

    Args:
        what: what the values are; begins each sentence.
        places: where the values are, for the end of the sentence.

    Yields:
        Sentences such as ``setting images is 24 in one and 48 in the other``, in the order of
        sorted keys.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() | other.keys()):
            joint = " " if what == "setting" else "."
            yield from differences(f"{what}{joint}{key}", one.get(key), other.get(key), places)
    elif (
        isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other)
    ):
        for index, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(f"{what}[{index}]", mine, its, places)
    elif one != other:
        yield f"{what} is {_short(one)} in {places[0]} and {_short(other)} in {places[1]}"


def _short(value: Any) -> str:
    text = "not there" if value is None else repr(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


CANDIDATES_OWN = frozenset(
    {
        "candidate",
        "adapters",
        "adapter_scale",
        "adapter_alpha",
        "attach",
        "method",
        "alignment_prompts",
        "alignment_languages",
        "alignment_seed",
    }
)
"""Settings that say what the candidate is; they may differ."""
_IMPLIED = frozenset({"preset"})
"""Settings whose every effect is another setting."""
_BESIDE = frozenset({"attacks", "attack", "attack_prompts", "attack_seed", "assert_attacks"})
"""Settings of what is measured beside the number, which attacks leave as it is."""


def refuse_differences(cards: Mapping[str, Scorecard]) -> None:
    """Makes sure that the scorecards differ in their candidates only.

    Args:
        cards: by the names that people know them by; each is held against the first.

    Raises:
        UserError: names the two and the first difference between them.
    """
    names = list(cards)
    for name in names[1:]:
        difference = first_difference(cards[names[0]], cards[name])
        if difference is not None:
            raise UserError(
                f"{names[0]} and {name} cannot be ranked together: {difference}.\n"
                "Measure both under the same settings, or rank them apart."
            )


def first_difference(one: Scorecard, other: Scorecard) -> str | None:
    """What was measured differently, in a few words; None if only the candidates differ.

    Protocol, base, judges and settings are compared first, then which cells there are and which
    prompts and seeds they hold. Last come the readings of the unaligned base: they reveal other
    reference images, fine-tuning data or library versions, which no setting names.
    """
    return next(_between(one, other), None)


def shared_settings(card: Scorecard) -> dict[str, Any]:
    """The settings that all scorecards of a leaderboard have in common."""
    hidden = CANDIDATES_OWN | _IMPLIED | _BESIDE
    return {key: value for key, value in card.settings.items() if key not in hidden}


def _between(one: Scorecard, other: Scorecard) -> Iterator[str]:
    yield from differences("protocol", one.protocol, other.protocol)
    yield from differences("base", one.base, other.base)
    yield from differences("judges", one.judges, other.judges)
    yield from differences("setting", shared_settings(one), shared_settings(other))
    beside = {
        result.cell.id for card in (one, other) for result in card.cells if result.cell.attack
    }
    for cell in sorted((_ids(one) ^ _ids(other)) - beside):
        yield f"cell {cell} is in only one of them"
    theirs = {result.cell.id: result for result in other.cells}
    shared = [(mine, theirs[mine.cell.id]) for mine in one.cells if mine.cell.id in theirs]
    for pair in shared:
        yield from _prompts(*pair)
    for pair in shared:
        yield from _base_readings(*pair)


def _ids(card: Scorecard) -> set[str]:
    return {result.cell.id for result in card.cells} | {missing.id for missing in card.missing}


def _prompts(one: CellResult, other: CellResult) -> Iterator[str]:
    # what cannot be measured shows no image
    if not one.cell.row.shows_all or not (one.images and other.images):
        return
    for number, (mine, its) in enumerate(zip(one.images, other.images, strict=False), 1):
        yield from differences(f"prompt {number} of cell {one.cell.id}", mine.prompt, its.prompt)
        yield from differences(f"seed {number} of cell {one.cell.id}", mine.seed, its.seed)
    yield from differences(f"images of cell {one.cell.id}", len(one.images), len(other.images))


def _base_readings(one: CellResult, other: CellResult) -> Iterator[str]:
    what = f"the unaligned base itself measures differently: cell {one.cell.id}"
    if one.cell.state.origin == "base" and None not in (one.value, other.value):
        yield from differences(what, _in_files(one.value, ".6f"), _in_files(other.value, ".6f"))
    for key in one.cell.row.base_details:
        if key in one.details and key in other.details:
            mine, its = (_in_files(r.details[key], ".9g") for r in (one, other))
            yield from differences(f"{what}, {key}", mine, its)


def _in_files(value: Any, digits: str) -> Any:
    """The number as scorecards in files hold it; one that was never written holds more digits."""
    return float(format(value, digits)) if isinstance(value, float) else value
