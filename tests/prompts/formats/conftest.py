"""Files of foreign formats with harmless stand-ins for their prompts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Sequence[dict[str, Any]], str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as the ending of a name says."""

    def to_file(rows: Sequence[dict[str, Any]], name: str) -> Path:
        path = tmp_path / name
        if path.suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        else:
            from pyarrow import Table
            from pyarrow.parquet import write_table

            write_table(Table.from_pylist(list(rows)), path)
        return path

    return to_file
