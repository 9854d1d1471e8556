"""What may be named as prompts, and files on the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts import hub
from spqr_checks.prompts.sources import Source, pinned, read_source
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings

COMMIT = "0123456789abcdef" * 2 + "01234567"
ROW = "prompt,categories\na star,hate\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline Hub cache with one file of owner/set; returns the folder of its commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "snapshots" / "hub"))
    repository = tmp_path / "snapshots" / "hub" / "datasets--owner--set"
    for name in ("refs/main", "refs/refs/convert/parquet"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(COMMIT, encoding="utf-8")
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / "test.csv").write_text(ROW, encoding="utf-8")
    return snapshot


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("i2p=a/b.csv", ("i2p", "", "a/b.csv")),
        ("Ring_A_Bell:red triangle=b=c.csv", ("ring-a-bell", "red triangle", "b=c.csv")),
        ("C:\\data\\p.csv", ("", "", "C:\\data\\p.csv")),
        ("./x=y/p.csv", ("", "", "./x=y/p.csv")),
        ("hf://o/n/a=b.csv", ("", "", "hf://o/n/a=b.csv")),
        ("visu=hf://o/n@main/p.json", ("visu", "", "hf://o/n@main/p.json")),
    ],
)
def test_a_format_may_stand_before_a_location(text: str, parts: tuple[str, str, str]) -> None:
    source = Source.parse(text)
    assert (source.format, source.concept, source.location) == parts


def test_an_existing_file_with_an_equals_sign_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.csv").write_text(ROW, encoding="utf-8")
    assert read_source("a=b.csv").format == "i2p"
    with pytest.raises(UserError, match="unknown prompt format 'a'"):
        read_source("a=c.csv")


@pytest.mark.parametrize(
    "url",
    [
        "hf://owner/set/data/test.csv",
        "hf://datasets/owner/set/data/test.csv",
        "hf://owner/set@main/data/test.csv",
        "hf://owner/set@refs/convert/parquet/data/test.csv",
        f"hf://owner/set@{COMMIT}/data/test.csv",
    ],
)
def test_a_hub_file_is_read_and_its_commit_pinned(cache: Path, url: str) -> None:
    assert [p.text for p in read_source(url).prompts] == ["a star"]
    assert pinned(url) == f"hf://owner/set@{COMMIT}/data/test.csv"
    assert pinned(f"i2p={url}") == f"i2p=hf://owner/set@{COMMIT}/data/test.csv"
    assert pinned("neutral") == "neutral"


def test_a_run_keeps_the_commit_in_its_settings(cache: Path, tmp_path: Path) -> None:
    settings = Settings(prompts=("hf://owner/set/data/test.csv",), store=str(tmp_path / "store"))
    run = Run.from_settings(settings)
    assert run.settings.measured()["prompts"] == [f"hf://owner/set@{COMMIT}/data/test.csv"]


def test_offline_a_file_that_is_not_there_is_said_to_be_out_of_reach(cache: Path) -> None:
    for url in ("hf://owner/other/p.csv", "hf://owner/set/data/train.csv"):
        with pytest.raises(UserError) as error:
            read_source(url)
        assert url in str(error.value)
        assert "the Hub cannot be reached" in str(error.value)
        assert "give its path" in str(error.value)


def test_a_refusal_of_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise ValueError("Access to dataset owner/set is restricted.\nmore")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"restricted\.\n.*accept the conditions on its page"):
        hub.fetch("hf://owner/set/p.csv")


@pytest.mark.parametrize(
    "url", ["hf://owner/p.csv", "hf://owner/set/p.py", "hf://owner/set@/p.csv", "hf://a b/c/p.csv"]
)
def test_an_address_of_another_form_is_answered_with_the_right_one(url: str) -> None:
    with pytest.raises(UserError, match=r"write hf://owner/name\[@revision\]/path-in-repo"):
        hub.fetch(url)
