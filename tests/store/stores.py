"""What the tests of the store put into it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spqr_checks.store.store import Store

FILES = {"weights.bin": b"w" * 700, "adapter.json": b"{}", "unet/config.json": b'{"a": 1}\n'}
RECIPE: dict[str, Any] = {
    "method": "esd",
    "seed": 0,
    "steps": [1, 2.5],
    "of": {"base": "abc", "rank": None},
}


def writing(files: dict[str, bytes]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return make


def refuse(folder: Path) -> None:
    raise AssertionError("nothing should have been made")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if not f.is_dir()}


def built(store: Store, recipe: dict[str, Any] = RECIPE, kind: str = "state") -> Path:
    entry = store.build(kind, recipe, writing(FILES))
    assert entry is not None
    return entry


@contextmanager
def fresh_store() -> Iterator[Store]:
    """For hypothesis, which runs many examples in one test function."""
    with tempfile.TemporaryDirectory() as folder:
        yield Store(Path(folder) / "store")
