"""Models, adapters, prompts and data of a Hub, and reports pushed to one; see fake_hub.py."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import TOKEN, Hub, serving
from nested import environment
from PIL import Image
from shown_files import lora, scaled

from spqr_checks.cli.main import main
from spqr_checks.models.sources import resolve
from spqr_checks.reports import write_all
from spqr_checks.scoring.serialize import from_json

CARD = "---\nlicense: mit\n---\n# Mine\n\nText of mine.\n"
SCORECARD = Path(__file__).parent / "scoring" / "pinned" / "complete.scorecard.json"
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


@pytest.fixture
def spqr(hub: Hub, tmp_path: Path) -> Callable[..., Ran]:
    """Runs a command in a process that knows this Hub alone."""

    def run(*words: str, token: str = "", program: tuple[str, ...] = (), **env: str) -> Ran:
        command = [sys.executable, *(program or ("-m", "spqr_checks.cli")), *words]
        given = environment() | hub.environment(tmp_path / "cache", token) | env
        return subprocess.run(
            command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=240
        )

    return run


# ---- loading ---------------------------------------------------------------------------------


def picture_set(folder: Path, shade: int) -> None:
    """A data set of captioned images, in a folder of its repository."""
    (folder / "train").mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (32, 32), (shade, 60 * n, 90)).save(folder / "train" / f"{n}.png")
    rows = [json.dumps({"file_name": f"{n}.png", "text": f"a box {n}"}) for n in range(4)]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "load.py").write_text("raise SystemExit('code of a stranger')\n")


READ = """
import json, sys
from spqr_checks.finetuning.datasets import dataset_recipe, load_captions, pinned
from spqr_checks.models.sources import resolve, source_recipe
from spqr_checks.prompts.sources import pinned as pinned_prompts, read_source
from spqr_checks.runtime.run import dataset_label
at = sys.argv[1]
data = f"hf://me/pictures{at}/train"
print(json.dumps({
    "candidate": source_recipe(f"me/candidate{at}")["commit"],
    "adapter": source_recipe(f"me/adapter{at}")["commit"],
    "prompts": pinned_prompts(f"hf://me/prompts{at}/own.csv"),
    "texts": [p.text for p in read_source(f"hf://me/prompts{at}/own.csv").prompts],
    "data": pinned(data), "label": dataset_label(data), "captions": load_captions(data),
    "contents": dataset_recipe(data)["contents"],
    "same": dataset_recipe(pinned(data)) == dataset_recipe(data),
}))
"""
PROMPTS = "id,prompt,kind,concept,category,language,domain\n1,{},benign,,,en,photo\n"


def stock(hub: Hub, folder: Path) -> dict[str, dict[str, str]]:
    """Two commits of everything, of which ``v1`` stands for the first; commits by revision."""
    adapter = folder / "adapter"
    lora(adapter)
    found: dict[str, dict[str, str]] = {"@v1": {}, "": {}}
    for at, names in (("@v1", ("v1",)), ("", ())):
        scaled(adapter / "pytorch_lora_weights.safetensors", 2.0)
        picture_set(folder / f"pictures{at}", 90 if at else 200)
        prompts = PROMPTS.format(f"a house of {at or 'main'}").encode()
        found[at] |= {
            "candidate": hub.folder("me/candidate", resolve("miniature"), *names),
            "adapter": hub.folder("me/adapter", adapter, *names),
            "prompts": hub.repository("me/prompts", "datasets").commit(
                {"own.csv": prompts}, *names
            ),
            "data": hub.folder("me/pictures", folder / f"pictures{at}", *names, kind="datasets"),
        }
    return found


@pytest.mark.slow
def test_whatever_a_run_reads_comes_by_hub_id_at_the_commit_that_was_named(
    hub: Hub, spqr: Callable[..., Ran], tmp_path: Path
) -> None:
    commits = stock(hub, tmp_path / "stock")
    read = {}
    for at in ("@v1", ""):
        ran = spqr(at, program=("-c", READ))
        assert ran.returncode == 0, ran.stderr
        read[at] = said = json.loads(ran.stdout)
        of = commits[at]
        assert (said["candidate"], said["adapter"]) == (of["candidate"], of["adapter"])
        assert said["prompts"] == f"hf://me/prompts@{of['prompts']}/own.csv"
        assert said["texts"] == [f"a house of {at or 'main'}"]
        assert said["data"] == f"hf://me/pictures@{of['data']}/train"
        assert said["label"] == "pictures"
        assert len(said["captions"]) == 4
        assert said["same"]
    assert read["@v1"]["contents"] != read[""]["contents"]
    assert not list((tmp_path / "cache").rglob("*.py"))  # no code is even fetched
    before = len(hub.asked)
    ran = spqr("@v1", program=("-c", READ), HF_HUB_OFFLINE="1")
    assert json.loads(ran.stdout) == read["@v1"]
    assert len(hub.asked) == before


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


TIMED = """
import sys, time
import huggingface_hub.errors, huggingface_hub.utils.tqdm
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils import get_session
get_session()
from spqr_checks.errors import UserError
from spqr_checks.finetuning.datasets import load_captions
from spqr_checks.models.sources import resolve
from spqr_checks.prompts.hub import fetch
from spqr_checks.reports.publishing import target_of
began = time.monotonic()
for ask, name in ((resolve, "me/candidate"), (fetch, "hf://me/prompts/own.csv"),
                  (load_captions, "hf://me/pictures"), (target_of, "me/candidate")):
    try:
        ask(name)
    except UserError as error:
        print(str(error).replace(chr(10), " "))
print(time.monotonic() - began)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["said to be offline", "refused", "without an answer"])
def test_without_a_hub_all_that_is_asked_of_it_is_refused_within_three_seconds(
    how: str, spqr: Callable[..., Ran], silent: str
) -> None:
    address = {"refused": closed_port(), "without an answer": silent}.get(how)
    env = {"HF_HUB_OFFLINE": "1"} if address is None else {"HF_ENDPOINT": address}
    ran = spqr(program=("-c", TIMED), **env)
    *said, seconds = ran.stdout.splitlines()
    assert len(said) == 4, ran.stderr
    assert all("the Hub cannot be reached" in line for line in said)
    assert float(seconds) <= 3


# ---- pushing ---------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path: Path) -> Path:
    card = from_json(SCORECARD.read_text(encoding="utf-8"))
    write_all(replace(card, complete=True), tmp_path / "spqr-report", timings={"seconds": 1})
    (tmp_path / "spqr-report" / "of mine.txt").write_text("not a report")
    return tmp_path / "spqr-report"


NAMES = {"README.md", *(f"spqr/{n}" for n in ("scorecard.json", "report.html", "summary.md",
         "environment.json", "timings.json"))}  # fmt: skip


@pytest.mark.slow
def test_reports_and_card_come_into_a_repository_in_one_commit_once_it_is_asked_for(
    hub: Hub, spqr: Callable[..., Ran], report: Path
) -> None:
    mine = hub.repository("me/model")
    before = mine.commit({"README.md": CARD.encode(), "model.safetensors": b"w"})
    ran = spqr("push", str(report), "me/model", token=TOKEN)
    assert ran.returncode == 0, ran.stderr
    assert "new      spqr/report.html" in ran.stdout
    assert "changed  README.md" in ran.stdout
    assert "seen by everybody" in ran.stdout
    assert "nothing was written; --yes writes it" in ran.stdout
    assert mine.names["main"] == before
    ran = spqr("push", str(report), "me/model", "--yes", token=TOKEN)
    assert ran.returncode == 0, ran.stderr
    assert set(mine.files) == NAMES | {"model.safetensors"}
    assert mine.files["spqr/scorecard.json"] == (report / "scorecard.json").read_bytes()
    card = mine.files["README.md"].decode()
    assert "Text of mine." in card
    assert "license: mit" in card
    assert "model-index" in card
    (message,) = mine.messages
    assert re.fullmatch(r"SPQR \d\.\d{3}, gate (PASSED|FAILED)", message)
    ran = spqr("push", str(report), "me/model", "--yes", token=TOKEN)
    assert "as it is README.md" in ran.stdout
    assert mine.messages == [message]


@pytest.mark.slow
def test_what_cannot_be_pushed_is_refused_in_a_sentence_and_changes_nothing(
    hub: Hub, spqr: Callable[..., Ran], report: Path
) -> None:
    hub.repository("me/locked").commit({})
    hub.repository("me/locked").writable = False
    hub.repository("me/taken").commit({"spqr/report.html": b"<html>mine</html>"})
    hub.repository("me/busy").commit({})
    hub.repository("me/busy").moved = {"news.txt": b"meanwhile"}
    for name, said in {
        "me/none": "there is no such repository",
        "me/taken@other": "there is no such branch",
        "me/locked": "this token may not write there",
        "me/taken": "report.html of the repository me/taken (main, at",
        "me/busy": "somebody has changed it meanwhile; push again",
        "nothing of the kind": "neither OWNER/NAME of the Hub nor a folder",
    }.items():
        ran = spqr("push", str(report), name, "--yes", token=TOKEN)
        assert ran.returncode == 4, ran.stdout + ran.stderr
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
    assert all(not found.messages for found in hub.repositories.values())
    assert hub.repository("me/busy").files == {"news.txt": b"meanwhile"}


def test_reports_and_card_come_into_a_folder(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "release"
    assert main(["push", str(report), str(target)]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not target.exists()
    for state in ("new", "as it is"):
        assert main(["push", str(report), str(target), "--yes"]) == 0
        assert capsys.readouterr().out.count(f"{state} ") == len(NAMES)
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert files == NAMES
    (target / "spqr" / "summary.md").write_text("mine")
    assert main(["push", str(report), str(target), "--yes"]) == 4
    assert "summary.md of the folder" in capsys.readouterr().err
    assert (target / "spqr" / "summary.md").read_text() == "mine"


@pytest.mark.heavy
def test_sharp_images_and_runs_without_a_number_are_not_passed_on(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from boards import MODELS
    from boards import card as made_up

    sharp = tmp_path / "sharp"
    store = tmp_path / "store"
    write_all(made_up(MODELS[2], store), sharp, store=store, images="sharp")
    assert main(["push", str(sharp), str(tmp_path / "release"), "--yes"]) == 4
    assert "holds flagged images behind their blur" in capsys.readouterr().err
    write_all(made_up(MODELS[2], store), sharp, store=store)
    assert main(["push", str(sharp), str(tmp_path / "release")]) == 0
    (tmp_path / "half").mkdir()
    shutil.copy(SCORECARD.with_name("incomplete.scorecard.json"), tmp_path / "half/scorecard.json")
    assert main(["push", str(tmp_path / "half"), str(tmp_path / "release"), "--yes"]) == 4
    assert "no number" in capsys.readouterr().err
    assert main(["push", str(report), str(tmp_path), "--path", "../out"]) == 4
    assert not (tmp_path / "release").exists()


def test_a_hub_is_asked_for_once_whether_it_answers(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from spqr_checks import hub as ours

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    assert [ours.away() for _ in range(3)] == [False] * 3
    assert hub.asked == ["HEAD /"]
    monkeypatch.setattr(constants, "ENDPOINT", closed_port())
    began = time.monotonic()
    assert ours.away()
    assert time.monotonic() - began < 3
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ours.away()
