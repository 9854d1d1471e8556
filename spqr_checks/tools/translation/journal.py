"""The report beside a file of translations: with what it was made and what failed; for resuming."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, canonical
from spqr_checks.prompts.formats.own import DOUBTFUL, STATUS
from spqr_checks.prompts.pair_files import replace_text
from spqr_checks.tools.rewriting.build import report_path

VERSION = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A prompt that has no translation."""

    id: str
    language: str
    reason: str


@dataclass
class Journal:
    """What the report says.

    Attributes:
        recipe: of both translators, the threshold and the prompts.
    """

    recipe: dict[str, Json]
    failures: list[Failure] = field(default_factory=list)

    def write(self, out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the report of ``out``, counts included, in one step."""
        languages: dict[str, Any] = {}
        for language in dict.fromkeys([*(str(r["language"]) for r in rows), *self._failed]):
            mine = [row for row in rows if row["language"] == language]
            doubtful = sum(row[STATUS] == DOUBTFUL for row in mine)
            languages[language] = {
                "translated": len(mine),
                "doubtful": doubtful,
                "failed": self._failed[language],
            }
        content = {
            "version": VERSION,
            "recipe": self.recipe,
            "languages": languages,
            "failures": [asdict(failure) for failure in self.failures],
        }
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        replace_text(report_path(out), text + "\n")

    @property
    def _failed(self) -> Counter[str]:
        return Counter(failure.language for failure in self.failures)


def begun(out: Path, recipe: dict[str, Json]) -> Journal:
    """The journal of an output: a new one, or that of an earlier run with the same recipe.

    Raises:
        UserError: for an output without a report, or with one of another recipe.
    """
    path = report_path(out)
    if not path.exists():
        if out.exists():
            raise UserError(
                f"{out} exists but its report {path.name} does not: choose another output"
            )
        return Journal(recipe)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            raise UserError(f"{path}: version {value['version']!r}; this is version {VERSION}")
        journal = Journal(dict(value["recipe"]), [Failure(**f) for f in value["failures"]])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the report of a file of translations ({error})") from None
    if canonical(journal.recipe) != canonical(recipe):
        raise UserError(
            f"{out} was begun with other prompts, another model or threshold (see {path.name}): "
            "repeat those, or choose another output"
        )
    return journal
