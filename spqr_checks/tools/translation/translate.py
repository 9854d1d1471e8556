"""Writes the translations of a prompt file, each held against its own back-translation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.prompts.formats.own import DOUBTFUL, FIELDS, STATUS
from spqr_checks.prompts.pair_files import write_rows
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import check_ending, raw_rows
from spqr_checks.tools.report import locked, read_report, write_report
from spqr_checks.tools.similarity import chrf

COLUMNS = (
    *FIELDS,
    "source_id",
    "source_language",
    "translator",
    "revision",
    "back_translation",
    "similarity",
    STATUS,
)
BATCH = 8
"""Prompts that are translated together: fixed, since their lengths decide the last bits."""
SAVE_EVERY = 4
SIMILAR_AT_LEAST = 0.5
"""Ours; published multilingual sets do not say how near their back-translations are."""

Progress = Callable[[str, int, int], None]
"""Called with a language and the numbers done and asked for."""


@dataclass(frozen=True, slots=True)
class Untranslated:
    """Why a text has no translation; never an empty string in its place."""

    reason: str


Translated = str | Untranslated


class Translator(Protocol):
    """A translator of short texts."""

    @property
    def name(self) -> str:
        """As in the provenance of a row."""

    @property
    def revision(self) -> str:
        """A commit, or a digest of the files."""

    @property
    def recipe(self) -> dict[str, Json]:
        """Everything that decides its translations."""

    def check(self, source: str, target: str) -> None:
        """Raises UserError unless it translates from the one language into the other."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Translated]:
        """A translation of each text, or why there is none.

        Args:
            texts: in the language ``source``. The same texts give the same translations.
            source, target: ISO 639-1 codes, such as ``en``.
        """


@dataclass(frozen=True, slots=True)
class Failure:
    """A prompt that has no translation."""

    id: str
    language: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What is in the file now.

    Attributes:
        doubtful: ids of translations whose back-translations are unlike their sources.
        failures: prompts without a translation.
        skipped: prompts that were in a wanted language already.
    """

    rows: int
    doubtful: tuple[str, ...]
    failures: tuple[Failure, ...]
    skipped: int


@dataclass(frozen=True)
class Translation:
    """Translators there and back, and the least similarity that is near enough."""

    forth: Translator
    back: Translator
    at_least: float = SIMILAR_AT_LEAST

    def recipe(self, prompts: Sequence[Prompt]) -> dict[str, Json]:
        return {
            "translator": self.forth.recipe,
            "back": self.back.recipe,
            "similarity": "chrF",
            "at_least": self.at_least,
            "batch": BATCH,
            "prompts": digest([[getattr(p, name) for name in _SOURCE] for p in prompts]),
        }


_SOURCE = ("id", "text", "kind", "concept", "category", "language", "domain", "anchor")


def translate(
    prompts: Sequence[Prompt],
    languages: Sequence[str],
    how: Translation,
    out: Path,
    progress: Progress = lambda *_: None,
) -> Result:
    """Translates prompts and anchors into each of the languages; writes or continues a file.

    What is in the file stays. Interrupted and continued, a run gives the bytes of one that was
    not. More languages may be asked for later; other prompts, models or thresholds need another
    file.

    Args:
        out: .csv or .jsonl; a report of what failed is written beside it.

    Raises:
        UserError: for a threshold that is no share, a language that a translator does not know, an
            output that was made otherwise, has no report, or cannot be written.
    """
    check_ending(out)
    if not 0 <= how.at_least <= 1:
        raise UserError(f"the least similarity is {how.at_least}; it must be from 0 to 1")
    for language in languages:
        for source in dict.fromkeys(p.language for p in prompts if p.language != language):
            how.forth.check(source, language)
            how.back.check(language, source)
    with locked(out):
        return _Work(prompts, how, out).run(languages, progress)


_Checked = tuple[Translated, Translated | None]
"""A translation and its back-translation."""


class _Work:
    """One output file while it is being written."""

    def __init__(self, prompts: Sequence[Prompt], how: Translation, out: Path) -> None:
        self._prompts, self._how, self._out = prompts, how, out
        self._recipe = how.recipe(prompts)
        begun = "other prompts, another model or threshold"
        before = read_report(out, self._recipe, _failures, "file of translations", begun)
        self._failures: list[Failure] = before or []
        self._rows = _read(out)
        self._done = {(str(row["source_id"]), str(row["language"])) for row in self._rows}
        self._done |= {(f.id, f.language) for f in self._failures}

    def run(self, languages: Sequence[str], progress: Progress) -> Result:
        wanted = list(dict.fromkeys(languages))
        self._report()
        try:
            for language in wanted:
                asked = [p for p in self._prompts if p.language != language]
                for n, batch in enumerate(_batches(asked), start=1):
                    if any((p.id, language) not in self._done for p in batch):
                        self._translate(batch, language)
                        if n % SAVE_EVERY == 0:
                            self._save()
                    progress(language, min(n * BATCH, len(asked)), len(asked))
        finally:
            self._save()
        doubtful = [str(row["id"]) for row in self._rows if row[STATUS] == DOUBTFUL]
        skipped = sum(p.language in wanted for p in self._prompts)
        return Result(len(self._rows), tuple(doubtful), tuple(self._failures), skipped)

    def _translate(self, batch: Sequence[Prompt], language: str) -> None:
        source = batch[0].language
        texts = [text for p in batch for text in ((p.text, p.anchor) if p.anchor else (p.text,))]
        there = self._how.forth.translate(texts, source, language)
        good = [text for text in there if isinstance(text, str)]
        back = iter(self._how.back.translate(good, language, source) if good else [])
        parts = iter([(text, next(back) if isinstance(text, str) else None) for text in there])
        for prompt in batch:
            first, second = next(parts), next(parts) if prompt.anchor else None
            if (prompt.id, language) not in self._done:
                self._done.add((prompt.id, language))
                self._take(prompt, language, first, second)

    def _take(self, prompt: Prompt, language: str, text: _Checked, anchor: _Checked | None) -> None:
        parts = [(text, prompt.text)] + ([(anchor, prompt.anchor)] if anchor else [])
        for (there, _), _ in parts:
            if isinstance(there, Untranslated):
                self._failures.append(Failure(prompt.id, language, there.reason))
                return
        similar = min(
            chrf(back, original) if isinstance(back, str) else 0.0 for (_, back), original in parts
        )
        row: dict[str, Any] = {name: getattr(prompt, name) for name in _SOURCE if name != "text"}
        row |= {
            "id": f"{prompt.id}@{language}",
            "prompt": text[0],
            "language": language,
            "anchor": anchor[0] if anchor else "",
            "source_id": prompt.id,
            "source_language": prompt.language,
            "translator": self._how.forth.name,
            "revision": self._how.forth.revision,
            "back_translation": text[1] if isinstance(text[1], str) else "",
            "similarity": f"{similar:.4f}",
            STATUS: "ok" if similar >= self._how.at_least else DOUBTFUL,
        }
        self._rows.append({name: row[name] for name in COLUMNS})

    def _save(self) -> None:
        if self._rows:
            write_rows(self._out, COLUMNS, self._rows)
        self._report()

    def _report(self) -> None:
        counts = {
            "translated": Counter(str(row["language"]) for row in self._rows),
            "doubtful": Counter(str(r["language"]) for r in self._rows if r[STATUS] == DOUBTFUL),
            "failed": Counter(failure.language for failure in self._failures),
        }
        languages = counts["translated"] | counts["failed"]
        write_report(
            self._out,
            self._recipe,
            languages={lang: {name: n[lang] for name, n in counts.items()} for lang in languages},
            failures=[asdict(failure) for failure in self._failures],
        )


def _failures(value: Any) -> list[Failure]:
    return [Failure(**failure) for failure in value["failures"]]


def _batches(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    """Neighbours of one language, at most ``BATCH`` of them."""
    for _, group in groupby(prompts, key=lambda prompt: prompt.language):
        while batch := list(islice(group, BATCH)):
            yield batch


def _read(out: Path) -> list[dict[str, Any]]:
    """The rows that are there, as they are."""
    if not out.exists():
        return []
    rows = [dict(row) for _, row in raw_rows(out)]
    if any(tuple(row) != COLUMNS for row in rows):
        raise UserError(f"{out}: its columns are not those of translations; choose another output")
    return rows
