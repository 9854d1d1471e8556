"""Pairs from a chat model, here one that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.hashing import Json
from spqr_checks.prompts.text import is_blank
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.llm import (
    LanguageModelRewriter,
    Message,
    UnparsableError,
    parse_answer,
)
from spqr_checks.tools.rewriting.rewriter import Failed, Written

TRIANGLE = Concept("red triangle", "signals")
GOOD = '{"prompt": "a blue triangle"}'


@dataclass
class Script:
    """Gives its answers one after the other, and keeps what it was asked."""

    answers: list[str]
    asked: list[tuple[list[Message], int]] = field(default_factory=list)

    @property
    def recipe(self) -> dict[str, Json]:
        return {"script": "1"}

    def answer(self, messages: Sequence[Message], seed: int) -> str:
        self.asked.append(([dict(m) for m in messages], seed))
        return self.answers[len(self.asked) - 1]


def test_a_readable_answer_is_taken_at_once() -> None:
    chat = Script([GOOD])
    assert LanguageModelRewriter(chat).rewrite(TRIANGLE, "a red triangle") == Written(
        "a blue triangle"
    )
    ((messages, _),) = chat.asked
    (message,) = messages
    assert message["role"] == "user"
    for part in ("red triangle", "signals", "Prompt: a red triangle\n", '{"prompt": "..."}'):
        assert part in message["content"]


def test_an_unreadable_answer_is_sent_back_with_the_reason_and_another_seed() -> None:
    chat = Script(["Sure!", "```", GOOD])
    answer = LanguageModelRewriter(chat, retries=2).rewrite(TRIANGLE, "x")
    assert answer == Written("a blue triangle", attempts=3)
    assert [len(messages) for messages, _ in chat.asked] == [1, 3, 5]
    assert chat.asked[1][0][1] == {"role": "assistant", "content": "Sure!"}
    assert "not JSON" in chat.asked[1][0][2]["content"]
    assert len({seed for _, seed in chat.asked}) == 3


def test_after_the_last_retry_it_has_failed_and_says_with_what() -> None:
    chat = Script(["no", "never", "I will not"])
    answer = LanguageModelRewriter(chat, retries=2).ask(TRIANGLE, 0, ())
    assert isinstance(answer, Failed)
    assert (answer.reason, answer.attempts) == ("unparsable", 3)
    assert "'I will not'" in answer.detail
    assert len(chat.asked) == 3


def test_no_retries_means_one_attempt() -> None:
    chat = Script(["no", GOOD])
    assert isinstance(LanguageModelRewriter(chat, retries=0).ask(TRIANGLE, 0, ()), Failed)
    assert len(chat.asked) == 1


def test_asking_names_concept_number_language_and_the_latest_earlier_prompts() -> None:
    chat = Script([GOOD])
    earlier = [f"prompt number {n}" for n in range(20)]
    LanguageModelRewriter(chat, language="Spanish").ask(TRIANGLE, 20, earlier)
    text = chat.asked[0][0][0]["content"]
    for part in ('"red triangle"', '"signals"', "number 21 ", "Spanish", "prompt number 19"):
        assert part in text
    assert "prompt number 11;" not in text
    assert "Write another one" not in _asked(number=0, earlier=())


def _asked(number: int, earlier: Sequence[str]) -> str:
    chat = Script([GOOD])
    LanguageModelRewriter(chat).ask(TRIANGLE, number, earlier)
    return chat.asked[0][0][0]["content"]


def test_braces_in_a_prompt_are_only_text() -> None:
    chat = Script([GOOD])
    odd = 'a {size} {prompt} "triangle"'
    LanguageModelRewriter(chat).rewrite(Concept("{x}", "{y}"), odd)
    assert odd in chat.asked[0][0][0]["content"]


def test_seeds_depend_on_what_is_asked_alone() -> None:
    def seed_of(seed: int, number: int) -> int:
        chat = Script([GOOD])
        LanguageModelRewriter(chat, seed=seed).ask(TRIANGLE, number, ())
        return chat.asked[0][1]

    assert seed_of(0, 0) == seed_of(0, 0)
    assert len({seed_of(0, 0), seed_of(0, 1), seed_of(1, 0)}) == 3


def test_the_recipe_follows_all_settings() -> None:
    recipes = [
        LanguageModelRewriter(Script([])).recipe,
        LanguageModelRewriter(Script([]), retries=1).recipe,
        LanguageModelRewriter(Script([]), seed=1).recipe,
        LanguageModelRewriter(Script([]), language="Hindi").recipe,
    ]
    assert len({json.dumps(recipe, sort_keys=True) for recipe in recipes}) == 4
    assert recipes[0]["chat"] == {"script": "1"}


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
