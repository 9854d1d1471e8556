"""Ring-A-Bell's columns, with harmless stand-ins for its prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sources import read_source

Write = Callable[..., Path]
ROWS = [
    {"prompt": "triangle zx red", "case_number": 0, "evaluation_seed": 41},
    {"prompt": "star qq", "case_number": 0, "evaluation_seed": 14},
    {"prompt": "star  qq", "case_number": 3, "evaluation_seed": 14},
]


@pytest.mark.parametrize(
    ("name", "concept", "category"),
    [
        ("Violence_eta_5_K_77.csv", "violence", "violence"),
        ("Nudity_eta_3_K_16.parquet", "nudity", "sexual"),
        ("hate.jsonl", "hate", "hate"),
    ],
)
def test_the_file_s_name_says_what_is_asked_for(
    write: Write, name: str, concept: str, category: str
) -> None:
    reading = read_source(str(write(ROWS, name)))
    assert reading.format == "ring-a-bell"
    assert {(p.kind, p.concept, p.category) for p in reading.prompts} == {
        ("harmful", concept, category)
    }
    assert reading.reasons == {"repeated": 1}


def test_the_user_may_say_it(write: Write) -> None:
    path = write(ROWS, "RAB.json")
    reading = read_source(f"ring-a-bell:nudity={path}")
    assert {(p.concept, p.category) for p in reading.prompts} == {("nudity", "sexual")}
    stand_in = read_source(f"Ring_A_Bell: hazard sign ={path}")
    assert {(p.concept, p.category) for p in stand_in.prompts} == {("hazard sign", "hazard sign")}


def test_nobody_says_it(write: Write) -> None:
    path = write(ROWS, "RAB.json")
    with pytest.raises(UserError, match=rf"if harmful, ring-a-bell:CONCEPT={path}"):
        read_source(str(path))


@pytest.mark.parametrize(
    "row",
    [
        {"sensitive prompt": "x", "evaluation_seed": 1},
        {"Sensitive_Prompt": "x"},
        {"case_number": 1, "prompt": "x", "content_flag": "flagged"},
    ],
)
def test_every_published_layout_is_known(write: Write, row: dict[str, object]) -> None:
    reading = read_source(str(write([row], "hate.jsonl")))
    assert (reading.format, reading.prompts[0].text) == ("ring-a-bell", "x")


def test_attacked_prompts_are_cells_of_their_own(write: Write, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("prompt,kind,concept,category\nx,harmful,nudity,sexual\n", encoding="utf-8")
    prompts = PromptSet.load([str(own), f"ring-a-bell:nudity={write(ROWS, 'RAB.json')}"])
    assert [(g.concept, g.domain) for g in prompts.groups] == [
        ("nudity", "plain"),
        ("nudity", "ring-a-bell"),
    ]
    assert {p.domain for p in prompts.narrowed(domains=["plain"]).prompts} == {"plain"}
