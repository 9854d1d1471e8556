"""What a pair must be before it is written."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

import pytest

from spqr_checks.errors import JudgeError
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.token_limit import TokenLimit
from spqr_checks.tools.rewriting.validators import (
    Checks,
    ConceptAbsent,
    FitsTokenizers,
    Near,
    NotEmpty,
    Validator,
)
from spqr_checks.tools.similarity import Similarity, word_overlap

TRIANGLE = Concept("red triangle", "signals", ("triángulo rojo", "लाल त्रिभुज", "⚠"))
STAR = Concept("star", "signals", ("stars", "étoile"))
CONCEPTS = (TRIANGLE, STAR)
WORDS = TokenLimit(lambda text: len(text.split()), 5, {})
GOOD = ("a big red triangle", "a big blue triangle")


def all_validators(concepts: Sequence[Concept] = CONCEPTS) -> list[Validator]:
    return [
        NotEmpty(),
        ConceptAbsent(concepts),
        Near(word_overlap(0.6)),
        FitsTokenizers([WORDS]),
    ]


def reason(unsafe: str, safe: str, concept: Concept = TRIANGLE) -> str | None:
    fault = Checks(all_validators()).fault(concept, unsafe, safe)
    return fault.reason if fault else None


def test_a_good_pair_has_no_fault() -> None:
    assert reason(*GOOD) is None


@pytest.mark.parametrize(
    ("unsafe", "safe", "expected"),
    [
        ("", "a big blue triangle", "empty"),
        ("a big red triangle", " \n", "empty"),
        ("a big red triangle", "\u200b\u200d", "empty"),
        ("a big star", "A  big\tStar", "unchanged"),
        ("a big red triangle", "a big RED, big triangle", "names the concept"),
        ("a big red triangle", "a triangle beside a red box", "names the concept"),
        ("un triángulo rojo", "un rojo triángulo azul", "names the concept"),
        ("x", unicodedata.normalize("NFD", "TRIÁNGULO rojo"), "names the concept"),
        ("x", "एक लाल त्रिभुज", "names the concept"),
        ("x", "a ⚠ here", "names the concept"),
        ("a red triangle", "a blue star", "names another concept"),
        ("a red triangle", "Une ÉTOILE", "names another concept"),
        ("a red triangle", "some stars", "names another concept"),
        ("a big red triangle", "the moon over a hill", "too different"),
        ("a b c d e f red triangle", "a b c d e f blue triangle", "too long"),
        ("a b c red triangle", "a b c d blue triangle", "too long"),
    ],
)
def test_each_fault_has_its_reason(unsafe: str, safe: str, expected: str) -> None:
    assert reason(unsafe, safe) == expected


def test_parts_of_a_concept_may_stay_and_longer_words_are_other_words() -> None:
    assert reason("a red triangle", "a red square") is None
    assert reason("a small star", "a small starfish", STAR) is None


def test_a_detail_says_where_it_is_wrong() -> None:
    checks = Checks(all_validators())
    assert "safe prompt names 'étoile'" in _detail(checks, STAR, "x", "une étoile")
    assert "safe prompt has 6 tokens of 5" in _detail(
        checks, TRIANGLE, "a b red triangle", "a b c d blue triangle"
    )
    assert "similarity 0.000, at least 0.6 needed" in _detail(checks, TRIANGLE, "x", "y")


def _detail(checks: Checks, concept: Concept, unsafe: str, safe: str) -> str:
    fault = checks.fault(concept, unsafe, safe)
    assert fault is not None
    return fault.detail


def test_the_longest_tokenizer_s_limit_does_not_hide_a_shorter_one() -> None:
    long = TokenLimit(lambda text: len(text.split()), 50, {})
    short = FitsTokenizers([long, WORDS])
    assert short.fault(TRIANGLE, "a b c d e f", "g") is not None
    assert FitsTokenizers([long]).fault(TRIANGLE, "a b c d e f", "g") is None


def test_what_cannot_be_measured_is_not_near() -> None:
    def broken(one: str, other: str) -> float:
        raise JudgeError("CLIP gave NaN")

    for measure in (broken, lambda *_: float("nan"), lambda *_: float("inf")):
        fault = Near(Similarity(measure, -1.0, {})).fault(TRIANGLE, *GOOD)
        assert fault is not None
        assert fault.reason == "similarity unknown"


def test_a_similarity_at_the_threshold_is_near_enough() -> None:
    near = Near(Similarity(lambda *_: 0.7, 0.7, {}))
    assert near.fault(TRIANGLE, *GOOD) is None
    assert Near(Similarity(lambda *_: 0.6999, 0.7, {})).fault(TRIANGLE, *GOOD) is not None


def test_an_unsafe_prompt_comes_once_but_safe_ones_may_be_shared() -> None:
    checks = Checks(all_validators())
    assert checks.fault(TRIANGLE, *GOOD) is None
    assert checks.fault(TRIANGLE, *GOOD) is None, "only accepted pairs count"
    checks.accepted([GOOD])
    fault = checks.fault(TRIANGLE, "A big  RED triangle", "a big green triangle")
    assert fault is not None
    assert fault.reason == "duplicate"
    assert checks.fault(TRIANGLE, "a very big red triangle", GOOD[1]) is None


def test_a_text_is_not_unsafe_here_and_safe_there() -> None:
    checks = Checks([NotEmpty()])
    checks.accepted([("a red star", "a blue star")])
    for pair in (("a Blue star", "a tree"), ("a tree", "a red  star")):
        fault = checks.fault(TRIANGLE, *pair)
        assert fault is not None
        assert fault.reason == "contradiction"


def test_the_recipe_tells_the_validators_and_their_thresholds() -> None:
    recipe = Checks(all_validators()).recipe
    assert len(recipe) == 4
    assert Checks(all_validators()[:3]).recipe != recipe
    other = [*all_validators()[:2], Near(word_overlap(0.5)), FitsTokenizers([WORDS])]
    assert Checks(other).recipe != recipe
    json.dumps(recipe)
