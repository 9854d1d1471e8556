"""Files of translations: provenance, doubt, failures, and going on where a run stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.sources import read_file
from spqr_checks.store import leases
from spqr_checks.tools.report import report_path
from spqr_checks.tools.translation.translate import (
    BATCH,
    Translated,
    Translation,
    Untranslated,
    translate,
)


@dataclass
class Cipher:
    """Turns letters round and back; ``lossy`` words come back as others, ``mute`` ones fail."""

    name: str = "cipher"
    revision: str = "0123456789ab"
    dies_after: int = 10**9
    calls: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def recipe(self) -> dict[str, Json]:
        return {"cipher": self.name}

    def check(self, source: str, target: str) -> None:
        if "xx" in (source, target):
            raise UserError("cipher does not know the language 'xx'")

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Translated]:
        if len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        self.calls.append((len(texts), source, target))
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Translated:
        if "mute" in text:
            return Untranslated("cut off")
        return "quite another thing" if text == "yssol" else text[::-1]


def prompts(n: int = 20) -> list[Prompt]:
    many = [Prompt(f"p:{i}", f"star {i}", "harmful", "star", "signs", "en") for i in range(n)]
    many[3] = Prompt("p:3", "lossy", "benign")
    many[5] = Prompt("p:5", "mute", "benign")
    many[7] = Prompt("p:7", "a moon", "harmful", "star", "signs", anchor="a cloud", domain="flat")
    many[9] = Prompt("p:9", "une lune", "benign", language="fr")
    return many


def run(out: Path, languages: Sequence[str] = ("fr", "es"), **options: object):  # type: ignore[no-untyped-def]
    cipher = Cipher(**options)  # type: ignore[arg-type]
    return translate(prompts(), languages, Translation(cipher, cipher), out), cipher


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_rows_are_prompts_with_their_provenance(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    result, _ = run(out)
    # 20 into Spanish and 19 into French, less one failure in each
    assert (result.rows, result.skipped) == (37, 1)
    reading = read_file(out, doubtful=True)
    by_id = {p.id: p for p in reading.prompts}
    moon = by_id["p:7@es"]
    assert (moon.text, moon.anchor, moon.language) == ("noom a", "duolc a", "es")
    assert (moon.kind, moon.concept, moon.category, moon.domain) == (
        "harmful", "star", "signs", "flat"
    )  # fmt: skip
    assert by_id["p:9@es"].text == "enul enu"
    text = out.read_text(encoding="utf-8")
    for value in ("source_id", "source_language", "cipher", "0123456789ab", "1.0000"):
        assert value in text


def test_doubtful_translations_are_marked_reported_and_not_used(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    result, _ = run(out)
    assert result.doubtful == ("p:3@fr", "p:3@es")
    reading = read_file(out)
    assert "p:3@fr" not in {p.id for p in reading.prompts}
    assert reading.reasons == {"doubtful translation": 2}
    report = json.loads(report_path(out).read_text(encoding="utf-8"))
    assert report["languages"]["fr"] == {"translated": 18, "doubtful": 1, "failed": 1}


def test_an_anchor_that_comes_back_as_another_makes_its_prompt_doubtful(tmp_path: Path) -> None:
    cipher, out = Cipher(), tmp_path / "t.csv"
    one = [Prompt("1", "a star", "harmful", "star", anchor="lossy")]
    assert translate(one, ["fr"], Translation(cipher, cipher), out).doubtful == ("1@fr",)


def test_what_failed_is_in_the_report_and_not_in_the_file(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "t.csv")
    assert [(f.id, f.language, f.reason) for f in result.failures] == [
        ("p:5", "fr", "cut off"),
        ("p:5", "es", "cut off"),
    ]
    assert "p:5@" not in (tmp_path / "t.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("dies_after", [0, 1, 3, 6, 9])
def test_interrupted_and_continued_it_gives_the_same_bytes(tmp_path: Path, dies_after: int) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(parts, dies_after=dies_after)
    run(parts)
    assert parts.read_bytes() == whole.read_bytes()
    assert report_path(parts).read_bytes() == report_path(whole).read_bytes()


def test_what_is_done_is_not_done_again_and_languages_may_be_added(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    run(out, ["fr"])
    before = out.read_bytes()
    _, cipher = run(out, ["fr"])
    assert cipher.calls == []
    assert out.read_bytes() == before
    result, cipher = run(out, ["fr", "es"])
    assert {target for _, source, target in cipher.calls if source == "en"} == {"es"}
    assert out.read_bytes().startswith(before)
    assert result.rows == 37


def test_what_the_user_mended_stays(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    run(out, ["fr"])
    mended = out.read_text(encoding="utf-8").replace("0 rats", "etoile zero")
    out.write_text(mended, encoding="utf-8")
    run(out)
    assert out.read_text(encoding="utf-8").startswith(mended)


def test_batches_are_of_one_language_and_do_not_grow(tmp_path: Path) -> None:
    _, cipher = run(tmp_path / "t.csv")
    assert [n for n, *way in cipher.calls if way == ["fr", "es"]] == [1]
    assert sum(n for n, *way in cipher.calls if way == ["en", "es"]) == 19 + 1  # and one anchor
    assert max(n for n, _, _ in cipher.calls) <= BATCH + 1


def test_nothing_of_the_user_s_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "mine.csv"
    out.write_text("prompt,kind\nx,benign\n", encoding="utf-8")
    with pytest.raises(UserError, match="exists but its report"):
        run(out)
    assert out.read_text(encoding="utf-8") == "prompt,kind\nx,benign\n"
    run(tmp_path / "t.csv", ["fr"])
    with pytest.raises(UserError, match="begun with other prompts, another model or threshold"):
        run(tmp_path / "t.csv", ["fr"], name="other")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    (tmp_path / "t.csv").write_text(text.replace("similarity", "likeness"), encoding="utf-8")
    with pytest.raises(UserError, match="its columns are not those of translations"):
        run(tmp_path / "t.csv", ["fr"])
    report_path(tmp_path / "t.csv").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not the report of a file of translations"):
        run(tmp_path / "t.csv", ["fr"])


def test_an_unknown_language_or_threshold_leaves_no_file(tmp_path: Path) -> None:
    cipher = Cipher()
    with pytest.raises(UserError, match="does not know the language 'xx'"):
        run(tmp_path / "t.csv", ["fr", "xx"])
    with pytest.raises(UserError, match="least similarity is 2"):
        translate(prompts(), ["fr"], Translation(cipher, cipher, 2), tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        run(tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        leases.lock(tmp_path / ".t.csv.lock", wait=False),
        pytest.raises(UserError, match="another process is writing this file"),
    ):
        run(tmp_path / "t.csv")
