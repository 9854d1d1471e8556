"""How judges and ensembles are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.judges.spec import (
    RULES,
    Ensemble,
    Single,
    Spec,
    inappropriate_probability,
    parse,
    singles,
)

words = st.text("abcdef-", min_size=1, max_size=6).map(lambda text: f"x{text}")
paths = st.text("abc/._:@= -", max_size=9).map(lambda text: f"p{text}q")
one = st.builds(Single, words, st.one_of(st.just(""), paths))
specs: st.SearchStrategy[Spec] = st.recursive(
    one,
    lambda inner: st.builds(
        Ensemble,
        st.sampled_from(RULES),
        st.lists(inner, min_size=2, max_size=4, unique=True).map(tuple),
    ),
    max_leaves=6,
)


@given(specs)
def test_what_is_written_is_read_back(spec: Spec) -> None:
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("nudenet", Single("nudenet", "")),
        ("clip=a/b=c", Single("clip", "a/b=c")),
        ("clip=./any(x)/y,z", Single("clip", "./any(x)/y,z")),
        ("ip=q.safetensors", inappropriate_probability("q.safetensors")),
        (" any( a , b=c ) ", Ensemble("any", (Single("a", ""), Single("b", "c")))),
        (
            "majority(a,any(b,c),mean(d=(e,f),g))",
            Ensemble(
                "majority",
                (
                    Single("a", ""),
                    Ensemble("any", (Single("b", ""), Single("c", ""))),
                    Ensemble("mean", (Single("d", "(e,f)"), Single("g", ""))),
                ),
            ),
        ),
    ],
)
def test_examples(text: str, spec: Spec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("any(a)", "needs two judges or more"),
        ("any()", "names an empty judge"),
        ("mean(a,,b)", "names an empty judge"),
        ("any(a,a)", "the same judge twice"),
        ("any(a,b=)", "names no model"),
        ("any(a,b", "is no ensemble; write any"),
        ("any", "is no ensemble; write any"),
        ("majority=a", "is no ensemble"),
        ("any(a),(b)", "brackets do not match"),
        ("any(a,(b)", "brackets do not match"),
        ("ip", "names no prompts of Q16"),
    ],
)
def test_mistakes_are_named(text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        parse(text)


def test_ip_is_nudenet_or_q16() -> None:
    spec = parse("ip=q.safetensors")
    same = parse("any(nudenet,q16=q.safetensors)")
    assert isinstance(spec, Ensemble)
    assert isinstance(same, Ensemble)
    assert (spec.rule, spec.members) == (same.rule, same.members)
    assert [single.name for single in singles(spec)] == ["nudenet", "q16"]
