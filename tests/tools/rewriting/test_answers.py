"""Reading of a language model's answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.prompts.text import is_blank
from spqr_checks.tools.rewriting.answers import UnparsableError, parse_answer


@given(st.text().filter(lambda t: not is_blank(t)))
def test_one_line_of_json_is_read_whatever_its_text(text: str) -> None:
    expected = " ".join(text.split())
    assert parse_answer(json.dumps({"prompt": text})) == expected
    assert parse_answer(f'  {{"prompt": {json.dumps(text)}}} \n') == expected


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "empty answer"),
        (" \n", "empty answer"),
        ("a blue triangle", "not JSON"),
        ('Sure! {"prompt": "a star"}', "not JSON"),
        ('{"prompt": "a star"} I hope this helps', "not JSON"),
        ('```json\n{"prompt": "a star"}\n```', "more than one line"),
        ('{"prompt": "a star"}\n{"prompt": "a moon"}', "more than one line"),
        ('{\n"prompt": "a star"}', "more than one line"),
        ('{"prompt": "a st', "not JSON"),
        ("{'prompt': 'a star'}", "not JSON"),
        ('"a star"', "not an object"),
        ('["a star"]', "not an object"),
        ("null", "not an object"),
        ("{}", "not an object with the one field 'prompt'"),
        ('{"text": "a star"}', "not an object with the one field 'prompt'"),
        ('{"prompt": "a star", "note": "x"}', "not an object with the one field 'prompt'"),
        ('{"prompt": "a star", "prompt": "a moon"}', "given twice"),
        ('{"prompt": 3}', "no text, or empty"),
        ('{"prompt": null}', "no text, or empty"),
        ('{"prompt": ["a star"]}', "no text, or empty"),
        ('{"prompt": " \\n"}', "no text, or empty"),
        ('{"prompt": "\\ud800"}', "not valid Unicode"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_anything_else_is_no_answer(answer: str, problem: str) -> None:
    with pytest.raises(UnparsableError, match=problem):
        parse_answer(answer)
