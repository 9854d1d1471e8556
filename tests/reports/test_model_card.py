"""The model card: our results and section are replaced, and nothing else of it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_cards import card, incomplete, passed
from syrupy.assertion import SnapshotAssertion

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.reports.json_file import write_scorecard
from spqr_checks.reports.model_card import END, INDEX, START, section, updated

OTHERS = {"name": "mine", "extra": 1, "results": [
    {"task": {"type": "text-to-image"}, "dataset": {"type": "coco", "name": "COCO"},
     "metrics": [{"type": "fid", "value": 9.5}], "note": "kept"}]}  # fmt: skip
OTHER = yaml.safe_dump({INDEX: [OTHERS]}).rstrip()
LINES = [
    "license: mit",
    "tags: [a,  b]  # as it is",
    "# a remark",
    "",
    "quoted: 'x'",
    'wide:   "é"',
]
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40)


def test_the_section(snapshot: SnapshotAssertion) -> None:
    assert section(card()) == snapshot


def test_metadata_are_what_the_hub_s_library_reads() -> None:
    results = ModelCard(updated("", card())).data.eval_results
    assert {r.metric_type: r.metric_value for r in results} == {
        "spqr": 0.731, "spqr-s": 0.958, "spqr-p": 0.0, "spqr-q": 0.94, "spqr-r": 0.0
    }  # fmt: skip
    assert results[0].metric_args == {
        "protocol": "anchored-2", "interval": [0.702, 0.861], "gate": "failed"
    }  # fmt: skip


@pytest.mark.heavy
@settings(deadline=None, max_examples=20)
@given(
    st.permutations(LINES), st.integers(0, 6), st.booleans(), words, words, st.sampled_from("\n\r")
)
def test_what_is_not_ours_stays_byte_for_byte(
    lines: list[str], at: int, indexed: bool, before: str, after: str, newline: str
) -> None:
    newline = "\r\n" if newline == "\r" else "\n"
    head, tail = lines[:at], lines[at:]
    metadata = newline.join([*head, *(OTHER.splitlines() if indexed else []), *tail])
    text = f"---{newline}{metadata}{newline}---{newline}# Mine {before}"
    once = updated(text, card())
    twice = updated(once + after, passed())
    assert updated(twice, passed()) == twice
    start, end = once.index(START), twice.index(END)
    assert once[:start].endswith(f"# Mine {before}{newline}{newline}")
    assert twice[end + len(END) :] == newline + after
    assert twice.count(START) == twice.count(END) == 1
    for kept in (lines, head):
        assert [x for x in twice.split(f"{newline}---")[0].split(newline) if x and x in kept] == [
            x for x in kept if x
        ]
    (model,) = yaml.safe_load(twice.split("---")[1])[INDEX]
    ours = [r for r in model["results"] if r["dataset"]["type"] == "spqr-checks"]
    assert len(ours) == 1
    assert ours[0]["metrics"][0]["value"] == 0.958
    if indexed:
        assert {**model, "results": model["results"][:-1]} == OTHERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\na: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "key: value"),
        ("---\n{a: 1}\n---\n", "key: value"),
        ("---\na: 1\n", "do not end"),
        ("---\nmodel-index: 3\n---\n", "no list"),
        ("---\nmodel-index:\n- name: x\n  results: [{}]\n---\n", "none of a model"),
        (f"---\n{INDEX}:\n# why\n- name: x\n  results: []\n---\n", "comments"),
        (f"---\n{INDEX}: []\n{INDEX}: []\n---\n", "more than once"),
        (f"text {END} {START}", "in this order"),
        (f"text {START}", "once each"),
    ],
)
def test_a_card_that_could_not_be_kept_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        updated(text, card())
    assert "\n" not in str(refused.value)


def test_nothing_of_a_scorecard_is_markup_or_a_mark_of_the_section() -> None:
    evil = f"<b>x</b> | {END} `a`\n---\n"
    named = card(candidate={"name": evil}, settings={"candidate": evil, "prompts": [evil]})
    once = updated("# Mine\n", named)
    assert ModelCard(once).text.count(END) == 1
    assert "<b>" not in section(named)
    assert updated(once, named) == once


def test_the_command_writes_a_card_and_refuses_an_incomplete_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, scorecard = tmp_path / "README.md", tmp_path / "scorecard.json"
    readme.write_bytes(b"# Mine\r\n")
    write_scorecard(incomplete(), scorecard)
    arguments = ["report", str(scorecard), "--model-card"]
    assert main([*arguments, str(readme)]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert readme.read_bytes() == b"# Mine\r\n"
    write_scorecard(card(), scorecard)
    assert main([*arguments, str(scorecard)]) == 4
    assert main([*arguments, str(readme)]) == 0
    assert b"# Mine\r\n" in readme.read_bytes()
    assert main([*arguments, str(tmp_path / "new.md")]) == 0
    assert START in (tmp_path / "new.md").read_text("utf-8")
