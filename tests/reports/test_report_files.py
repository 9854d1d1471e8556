"""Report files: atomic, stable, and never over a file of somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_cards import card, passed

from spqr_checks.errors import UserError
from spqr_checks.reports.json_file import environment, write_scorecard, write_sibling
from spqr_checks.reports.markdown import write_summary
from spqr_checks.scoring.serialize import from_json

Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {
    "scorecard.json": lambda path: write_scorecard(card(), path),
    "environment.json": lambda path: write_sibling("environment", environment(), path),
    "timings.json": lambda path: write_sibling("timings", {"generate": 12.5}, path),
    "summary.md": lambda path: write_summary(card(), path),
}
every_file = pytest.mark.parametrize("name", WRITERS)


@every_file
def test_a_file_is_written_into_a_new_folder_and_replaced_by_the_next_run(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "folder" / name
    WRITERS[name](path)
    first = path.read_bytes()
    WRITERS[name](path)
    assert path.read_bytes() == first
    assert sorted(os.listdir(path.parent)) == [name]


@every_file
@pytest.mark.parametrize(
    "content", [b"{}", b"", b"# my notes", b"\xff\xfe", b'{"kind": "mine"}', b"[" * 20_000]
)
def test_a_file_of_somebody_else_is_never_overwritten(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="already there"):
        WRITERS[name](path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [name]


@every_file
def test_a_folder_in_the_way_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name):
        WRITERS[name](tmp_path / name)


@every_file
def test_a_place_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        WRITERS[name](tmp_path / "file" / name)


def test_the_old_report_stays_whole_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scorecard.json"
    write_scorecard(card(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_scorecard(passed(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["scorecard.json"]


def test_the_scorecard_reads_back(tmp_path: Path) -> None:
    write_scorecard(card(), tmp_path / "scorecard.json")
    again = from_json((tmp_path / "scorecard.json").read_text())
    assert again.spqr == card().spqr
    assert [r.cell for r in again.cells] == [r.cell for r in card().cells]


def test_a_scorecard_that_was_tampered_with_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "scorecard.json"
    write_scorecard(card(), path)
    document = json.loads(path.read_text())
    del document["gate"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="already there"):
        write_scorecard(card(), path)


def test_the_environment_names_python_platform_and_versions(tmp_path: Path) -> None:
    write_sibling("environment", environment(), tmp_path / "e.json")
    system = json.loads((tmp_path / "e.json").read_text())["environment"]
    assert system["python"] == ".".join(map(str, sys.version_info[:3]))
    assert system["versions"]["torch"].startswith("2.")
    assert system["versions"]["pillow"]


def test_timings_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_sibling("timings", {"x": float("nan")}, tmp_path / "t.json")
    assert os.listdir(tmp_path) == []


def test_reports_never_load_torch() -> None:
    code = (
        "import sys, spqr_checks.reports.allure, spqr_checks.reports.terminal; "
        "from spqr_checks.reports.json_file import environment; environment(); "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
