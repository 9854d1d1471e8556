"""`spqr miniature train`: trains, measures, and writes the record beside the weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError

RECORD = "record.json"


def train(out: Path, seed: int, scale: float) -> dict[str, Any]:
    """Trains the embedded world into ``out``.

    Args:
        scale: factor on the steps of every stage; 1.0 is what the shipped weights were made with.

    Raises:
        UserError: if ``out`` holds a finished training.
    """
    if (out / RECORD).exists():
        raise UserError(f"{out}: a finished training is already there; choose another --out")
    from spqr_checks.miniature import quality
    from spqr_checks.miniature.training import build

    out.mkdir(parents=True, exist_ok=True)
    record = build.train_all(out, seed, build.Budget().scaled(scale))
    print("measuring quality", file=sys.stderr, flush=True)
    record["quality"] = quality.measure(out, seed)
    text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True)
    (out / RECORD).write_text(text + "\n", encoding="utf-8")
    return record
