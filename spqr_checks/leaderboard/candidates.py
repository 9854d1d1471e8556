"""What is to be ranked: candidates to run, and scorecards that there are already."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spqr_checks.alignment.registry import METHODS
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest
from spqr_checks.reports.json_file import read_scorecard
from spqr_checks.runtime.named_models import METHOD
from spqr_checks.scoring.leaderboard.board import Entry

ALL = "all"
"""Stands for the base and every method that there is."""
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,60}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate to run; ``name`` is as `--spqr-candidate` takes it, and the leaderboard's."""

    name: str

    @property
    def slug(self) -> str:
        """Name of its folder of reports; different for different names."""
        method = self.name.removeprefix(METHOD)
        if self.name == "base":
            return self.name
        if self.name != method and _PLAIN.fullmatch(method):
            return f"method-{method}"
        # a name that is no folder's name gets a digest, so that none are alike
        tail = re.sub(r"[^A-Za-z0-9-]+", "_", self.name).strip("_")[-40:]
        return f"{tail or 'candidate'}-{digest(self.name)[:8]}"


def parse_candidates(text: str) -> list[Candidate]:
    """Candidates of a comma-separated list.

    ``uce`` is short for ``method:uce``, the name of every method being accepted like that, and
    ``all`` for the base and every method, those of other distributions too.

    Raises:
        UserError: an empty list, a candidate named twice, or a short name that is a folder too.
    """
    names = [name for part in text.split(",") if part.strip() for name in _full(part.strip())]
    if not names:
        raise UserError("--candidates names no candidate; for example --candidates base,method:uce")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"--candidates names {twice[0]} twice")
    return [Candidate(name) for name in names]


def _full(name: str) -> list[str]:
    """What a part of the list stands for."""
    methods = METHODS.names()
    if name != ALL and name not in methods:
        return [name]
    if Path(name).exists():
        what, other = (
            ("stands for every method", "move the folder away")
            if name == ALL
            else ("is an alignment method", f"say {METHOD}{name}")
        )
        raise UserError(f"{name!r} {what}, and a folder here: {other} or say ./{name}")
    return ["base", *(METHOD + each for each in methods)] if name == ALL else [METHOD + name]


def finished(paths: Sequence[Path]) -> list[Entry]:
    """Scorecards that are there already, under the names of their candidates.

    Candidates of one name (the same method with other options, say) are told apart by their files.

    Raises:
        UserError: a file that is no scorecard.
    """
    cards = [(path, read_scorecard(path)) for path in paths]
    names = [str(card.candidate.get("name") or path) for path, card in cards]
    counts = Counter(names)
    return [
        Entry(name if counts[name] == 1 else f"{name} ({path})", card)
        for name, (path, card) in zip(names, cards, strict=True)
    ]


def refuse_repeats(entries: Sequence[Entry]) -> None:
    """Raises UserError if one candidate is to be ranked twice."""
    seen: dict[str, str] = {}
    for entry in entries:
        keys = [f"name {entry.name}"]
        if entry.card is not None:
            keys.append(digest(entry.card.candidate))
        for key in keys:
            if key in seen:
                raise UserError(
                    f"{seen[key]} and {entry.name} are the same candidate; give it once"
                )
        seen |= dict.fromkeys(keys, entry.name)
