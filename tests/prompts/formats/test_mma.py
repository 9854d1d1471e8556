"""MMA-Diffusion's columns, with harmless stand-ins for its prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spqr_checks.prompts.sources import read_source

ROWS = [
    {
        "target_prompt": "a star",
        "adv_prompt": found,
        "sanitized_adv_prompt": "sanitised",
        "success_against_sanitization_defense": True,
        "clean_prompt": "a quiet road",
    }
    for found in ("zx star", "", "zx  star")
]


def test_what_was_found_is_read_and_not_its_target(write: Callable[..., Path]) -> None:
    reading = read_source(str(path := write(ROWS, "p.csv")))
    assert reading.format == "mma"
    assert [(p.text, p.kind, p.concept, p.domain) for p in reading.prompts] == [
        ("zx star", "harmful", "sexual", "mma")
    ]
    assert reading.reasons == {"empty": 1, "repeated": 1}
    assert {p.concept for p in read_source(f"mma:hazard={path}").prompts} == {"hazard"}
