"""What besides its weights distinguishes a candidate's pipeline from the base's. Light.

A candidate may come with another tokenizer or scheduler. That is its right, but a difference in
what is drawn is then not the weights' alone, so the scorecard says so. Files are compared by what
they say, not by their bytes: libraries rewrite them with every version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spqr_checks.models.sources import resolve

_INDEX = "model_index.json"
_SHOWN = 4
_NOT_SET = "not set"


def differences(base: str, candidate: str) -> list[str]:
    """One line for each tokenizer or scheduler that is not the base's, and for another class.

    Raises:
        UserError: as `sources.resolve`.
    """
    ours, theirs = resolve(candidate), resolve(base)
    mine, its = _json(ours / _INDEX), _json(theirs / _INDEX)
    notes = []
    if mine.get("_class_name") != its.get("_class_name"):
        notes.append(f"the candidate is a {mine.get('_class_name')}, not {its.get('_class_name')}")
    parts = {name for name in (*mine, *its) if name.startswith(("tokenizer", "scheduler"))}
    for name in sorted(parts):
        if found := _said(name, (mine.get(name), ours / name), (its.get(name), theirs / name)):
            notes.append(f"the candidate's {name} is not the base's: {found}")
    return notes


def _said(name: str, mine: tuple[Any, Path], its: tuple[Any, Path]) -> str:
    """How a part differs; empty if it does not."""
    there = [folder.is_dir() for _, folder in (mine, its)]
    if not all(there):
        return "only one of them has it" if any(there) else ""
    if name.startswith("scheduler"):
        one, two = (_scheduler(entry, folder) for entry, folder in (mine, its))
    else:
        one, two = (_tokenizer(folder) for _, folder in (mine, its))
        if None in (one["vocabulary"], two["vocabulary"]):
            return "" if _files(mine[1]) == _files(its[1]) else "their files differ"
    changed = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    shown = [_change(key, one, two) for key in changed[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(changed) > _SHOWN else "")


def _change(key: str, mine: dict[str, Any], its: dict[str, Any]) -> str:
    values = [side.get(key, _NOT_SET) for side in (mine, its)]
    if any(isinstance(value, dict | list) for value in values):
        return f"another {key}"
    return f"{key} {values[0]} (base: {values[1]})"


def _scheduler(entry: Any, folder: Path) -> dict[str, Any]:
    """Class and options, without the private notes of the library that wrote them."""
    config = _json(folder / "scheduler_config.json")
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    return plain | {"class": entry[1] if isinstance(entry, list) and len(entry) == 2 else None}


def _tokenizer(folder: Path) -> dict[str, Any]:
    """Vocabulary, merges and length; the vocabulary is None if it lies in a binary file."""
    config, whole = _json(folder / "tokenizer_config.json"), _json(folder / "tokenizer.json")
    model = whole.get("model", {})
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if vocabulary is None:
        vocabulary = _json(folder / "vocab.json") or None
        text = _text(folder / "merges.txt")
        merges = [x for x in text.splitlines() if x and not x.startswith("#version")]
    if isinstance(vocabulary, dict):
        # some files list the special tokens with the others, some beside them
        added = whole.get("added_tokens", [])
        vocabulary = vocabulary | {token["content"]: token["id"] for token in added}
    pairs = [" ".join(merge) if isinstance(merge, list) else merge for merge in merges or []]
    return {
        "vocabulary": vocabulary,
        "merges": pairs,
        "model_max_length": config.get("model_max_length"),
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _json(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none, which whoever loads it will complain of."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
