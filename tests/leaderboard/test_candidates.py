"""Names, folders and scorecards of what is to be ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, card
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.alignment.registry import METHODS
from spqr_checks.errors import UserError
from spqr_checks.leaderboard.candidates import (
    finished,
    parse_candidates,
    refuse_repeats,
)
from spqr_checks.reports.json_file import read_scorecard, write_scorecard
from spqr_checks.scoring.leaderboard.board import Entry


def test_a_method_s_name_is_enough() -> None:
    found = parse_candidates("base, uce ,method:esd,./mine,owner/name")
    assert [c.name for c in found] == ["base", "method:uce", "method:esd", "./mine", "owner/name"]
    assert [c.slug for c in found[:3]] == ["base", "method-uce", "method-esd"]


def test_all_is_the_base_and_every_method_those_of_others_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = METHODS.names()
    monkeypatch.setattr(METHODS, "names", lambda: (*ours, "theirs"))
    found = [c.name for c in parse_candidates("./mine,all")]
    assert found == ["./mine", "base", *(f"method:{name}" for name in ours), "method:theirs"]
    with pytest.raises(UserError, match="method:uce twice"):
        parse_candidates("all,uce")


names = st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(names | st.sampled_from(["base", "method:uce", "a/b", "a_b"]), max_size=6))
def test_different_candidates_have_different_folders(parts: list[str]) -> None:
    wanted = dict.fromkeys(p.strip() for p in parts if p.strip() and p.strip() != "uce")
    if not wanted:
        return
    try:
        found = parse_candidates(",".join(wanted))
    except UserError:
        return  # another spelling of a method
    slugs = [c.slug for c in found]
    assert len(set(slugs)) == len(slugs) == len(wanted)
    for slug in slugs:
        assert slug.isascii()
        assert Path(slug).name == slug
        assert not slug.startswith(".")
        assert len(slug) < 80


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no candidate"),
        (" , ", "names no candidate"),
        ("base,base", "base twice"),
        ("uce,method:uce", "method:uce twice"),
    ],
)
def test_an_odd_list_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_candidates(text)


def test_a_folder_with_a_method_s_name_is_not_guessed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uce", "all"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"move the folder away or say \./all"):
        parse_candidates("all")
    assert [c.name for c in parse_candidates("./all")] == ["./all"]
    with pytest.raises(UserError, match=r"say method:uce or say \./uce"):
        parse_candidates("uce")
    assert parse_candidates("method:uce")[0].slug != parse_candidates("./uce")[0].slug


# ---- finished scorecards ---------------------------------------------------------------------


@pytest.mark.heavy
def test_a_scorecard_is_read_from_its_file_or_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "scorecard.json"
    write_scorecard(card(MODELS[0]), path)
    assert read_scorecard(path) == read_scorecard(tmp_path / "run")
    assert finished([path])[0].name == "method:uce"


def test_what_is_no_scorecard_is_named(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"\xff", b"[1]"):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.json"):
            read_scorecard(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"none\.json"):
        read_scorecard(tmp_path / "none.json")


def test_two_candidates_of_one_name_are_told_apart_by_their_files(tmp_path: Path) -> None:
    one = card(MODELS[0])
    other = replace(one, candidate={**one.candidate, "recipe": {"options": 2}})
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, made in zip(paths, (one, other), strict=True):
        write_scorecard(made, path)
    entries = finished(paths)
    assert [e.name for e in entries] == [f"method:uce ({path})" for path in paths]
    refuse_repeats(entries)


def test_one_candidate_is_not_ranked_twice() -> None:
    one = card(MODELS[0])
    with pytest.raises(UserError, match="a and b are the same candidate"):
        refuse_repeats([Entry("a", one), Entry("b", one)])
    with pytest.raises(UserError, match="same candidate"):
        refuse_repeats([Entry("method:uce", None), Entry("method:uce", one)])
    refuse_repeats([Entry("a", None), Entry("b", None), Entry("c", one)])
