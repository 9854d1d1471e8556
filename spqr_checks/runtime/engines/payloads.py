"""What travels between machines: entries of stores, and the files that settings name. Light.

Nothing but names, bytes and digests; what arrives is checked before it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from spqr_checks.adaptations.chosen import files_of
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.hashing import digest
from spqr_checks.runtime.devices import kind_of
from spqr_checks.settings import Settings
from spqr_checks.store import manifest
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store

Payload: TypeAlias = dict[str, bytes]
"""An entry's files by their relative names, its recipe and manifest among them."""

Failures: TypeAlias = dict[str, tuple[str, str]]
"""Key of a unit that could not be made → kind of the error, and what it said."""

CHUNK = 64 * 2**20
_KINDS = (".safetensors", ".png", ".json")
_PATHS = ("base", "candidate", "clip", "reference", "calibration")
_LISTS = ("adapters", "prompts", "alignment_prompts", "datasets")
_SPECS = ("judge", "adherence", "features")
_BEFORE = re.compile(r"(?P<before>(?:[\w.:-]+=|self:)*)(?P<path>.+)", re.DOTALL)
_OURS = "payload:"
_WORDS = {"base", "miniature"}
"""They mean the same everywhere, whatever lies beside the run under such a name."""


def packed(entry: Path) -> Payload:
    """A finished entry as bytes."""
    return {name: (entry / name).read_bytes() for name in sorted(manifest.stamps(entry))}


def unpacked(payload: Any, kind: str, key: str, store: Store) -> Path:
    """Takes an entry into a store. Raises DamagedError for what is no sound entry of that key."""
    if not isinstance(payload, dict):
        raise DamagedError("what came is no entry")
    for name, content in payload.items():
        if not (isinstance(name, str) and isinstance(content, bytes) and name.endswith(_KINDS)):
            raise DamagedError(f"{str(name)!r} is none of {', '.join(_KINDS)}")
        manifest.refuse_name(name)

    def write(draft: Path) -> None:
        for name, content in payload.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)

    return store.receive(kind, key, write)


@dataclass(frozen=True)
class Input:
    """A file that settings name, or one below a folder that they name.

    Attributes:
        place: where it lies among the inputs.
        path: where it is here.
    """

    place: str
    path: Path

    def chunks(self) -> Iterator[bytes]:
        """Its content, in parts."""
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def sha256(self) -> str:
        """Of its content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def inputs(settings: Settings) -> tuple[dict[str, Any], list[Input]]:
    """The settings with placeholders for files that are here only, and these files.

    What is packaged, and ids of the Hub, every machine finds by itself.
    """
    found: dict[str, Input] = {}

    def replaced(text: str) -> str:
        match = _BEFORE.fullmatch(text)
        if match is None or text.partition(":")[0] in _WORDS:
            return text
        path = Path(match["path"]).expanduser()
        if not path.exists():
            return text
        # the name stays, since labels of data sets are made of it
        place = f"{digest(os.path.abspath(path))[:12]}/{path.resolve().name}"
        found.update((one.place, one) for one in _files(path, place))
        return f"{match['before']}{_OURS}{place}"

    def within(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: within(one) for name, one in value.items()}
        if isinstance(value, list):
            return [within(one) for one in value]
        return replaced(value) if isinstance(value, str) and _names_a_file(value) else value

    told = settings.model_dump(mode="json")
    for field in _PATHS:
        told[field] = replaced(told[field])
    for field in _LISTS:
        told[field] = [replaced(one) for one in told[field]]
    for field in _SPECS:  # members of a panel stand in brackets
        told[field] = "".join(
            replaced(part) if "=" in part else part for part in re.split(r"([(),])", told[field])
        )
    for field in ("guard", "attacks"):
        told[field] = [replaced(one) if "=" in one else one for one in told[field]]
    named = {*ADAPTATIONS.names(), *told["adaptation"]}
    adaptations = [one for spec in told["adaptations"] for one in files_of(spec)]
    told["adaptations"] = [
        one if one.split(":")[0] in named and "=" not in one else replaced(one)
        for one in adaptations
    ]
    for field in ("method", "judges", "guards", "attack", "adaptation"):
        told[field] = within(told[field])
    return told, list(found.values())


def placed(told: dict[str, Any], folder: Path, store: Path) -> Settings:
    """Settings that `inputs` gave, on the machine where the files now lie in a folder."""

    def within(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: within(one) for name, one in value.items()}
        if isinstance(value, list):
            return [within(one) for one in value]
        return value.replace(_OURS, f"{folder}{os.sep}") if isinstance(value, str) else value

    # each has its own, the first that it sees
    kinds = {field: kind_of(str(told[field])) for field in ("device", "judge_device")}
    here: dict[str, Any] = {"store": str(store), "devices": [], **kinds}
    here |= {"engine": "local", "shard": "", "baseline": ""}
    said = {name: value for name, value in within(told).items() if value is not None}
    return Settings.model_validate(said | here)


def _names_a_file(value: str) -> bool:
    """Whether an option's text can be the name of one, or of a folder: no word such as ``sum``."""
    return os.sep in value or bool(Path(value).suffix) or Path(value).is_dir()


def _files(path: Path, place: str) -> Iterator[Input]:
    if path.is_file():
        yield Input(place, path)
    for folder, _, names in os.walk(path, followlinks=True):
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():
                yield Input(f"{place}/{file.relative_to(path).as_posix()}", file)
