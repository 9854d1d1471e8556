"""The `spqr` command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from boards import MODELS, card

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.models.sources import UNEVEN, resolve, source_recipe, uneven_folder
from spqr_checks.reports import write_all
from spqr_checks.settings import load_settings

AXES = ["--safety", ".938", "--prompt-adherence", ".973", "--quality", ".934", "--robustness"]


def test_score_prints_the_harmonic_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--protocol", "v2-published", *AXES, ".980"]) == 0
    assert capsys.readouterr().out == "0.956\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "v9", *AXES, ".98"], "v9"),
        ([*AXES, "1.98"], "1.98"),
        ([*AXES, "nan"], "nan"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_4(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["score", *arguments]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) <= 2


def test_help_and_score_do_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from spqr_checks.cli.main import main\n"
        f"main(['score'] + {[*AXES, '.98']!r})\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_report_is_written_again_from_its_scorecard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.json"
    assert main(["report", str(missing), "--out", str(tmp_path / "r")]) == 4
    assert "none.json" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert main(["report", str(broken), "--out", str(tmp_path / "r")]) == 4
    assert not (tmp_path / "r").exists()


def test_a_scorecard_is_shown_and_its_reports_say_where_it_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = {"python": "3.99", "platform": "another", "versions": {"torch": "9"}}
    write_all(card(MODELS[0]), tmp_path / "spqr-report", environment=elsewhere)
    assert main(["report"]) == 0
    said = capsys.readouterr().out
    assert "gate PASSED" in said
    assert "report:" not in said
    assert main(["report", "spqr-report", "--out", "again"]) == 0
    assert "report: again/report.html" in capsys.readouterr().out
    for name in ("scorecard.json", "environment.json"):
        assert Path("again", name).read_bytes() == Path("spqr-report", name).read_bytes()
    assert "Python 3.99, another, torch 9" in Path("again", "report.html").read_text("utf-8")


def test_the_store_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spqr_checks.store.store import Store

    store = Store(tmp_path / "s")
    entry = store.build("images", {"n": 1}, lambda p: (p / "a.txt").write_text("x") and None)
    assert entry is not None
    assert main(["store", "usage", "--store", str(tmp_path / "s")]) == 0
    assert "images" in capsys.readouterr().out
    assert main(["store", "verify", "--store", str(tmp_path / "s")]) == 0
    (entry / "a.txt").write_text("y")
    assert main(["store", "verify", "--store", str(tmp_path / "s")]) == 1


@pytest.mark.heavy
@pytest.mark.parametrize("said", ["project", "variable", "option"])
def test_commands_look_after_the_store_that_runs_use(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spqr_checks.store.store import Store

    Store(tmp_path / said).build("images", {}, lambda p: (p / "a").write_text("x") and None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.spqr]\nstore = "project"\n')
    if said != "project":
        monkeypatch.setenv("SPQR_STORE", "variable")
    given = ["--store", "option"] if said == "option" else []
    assert main(["store", "usage", *given]) == 0
    assert "images" in capsys.readouterr().out
    main(["doctor", "--json", *given])
    assert json.loads(capsys.readouterr().out)["machine"]["store"]["path"].endswith(said)


def test_the_store_is_rid_of_old_entries_of_the_kinds_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from spqr_checks.store.store import Store

    store = Store(tmp_path)
    made = {}
    for kind, days in (("images", 40), ("images", 1), ("verdicts", 40)):
        entry = store.build(kind, {"n": days}, lambda p: (p / "a.txt").write_text("x") and None)
        assert entry is not None
        past = time.time() - days * 86_400
        os.utime(entry, (past, past))
        made[kind, days] = entry

    def left() -> set[tuple[str, int]]:
        return {name for name, entry in made.items() if entry.exists()}

    def prune(*arguments: str) -> tuple[int, str]:
        code = main(["store", "prune", *arguments, "--store", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out + said.err

    for wrong in (["imgs"], ["images", "--older-than", "-1"], ["images", "--older-than", "nan"]):
        code, said = prune(*wrong)
        assert code == 4
        assert wrong[-1] in said
        assert left() == made.keys()
    assert prune("images", "--older-than", "30") == (0, "1 entries removed\n")
    assert left() == {("images", 1), ("verdicts", 40)}
    assert prune("images", "verdicts") == (0, "2 entries removed\n")
    assert left() == set()


def test_a_finished_miniature_training_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "record.json").write_text("{}")
    assert main(["miniature", "train", "--out", str(tmp_path)]) == 4
    assert "choose another --out" in capsys.readouterr().err


def test_the_uneven_miniature_is_found_where_it_is_trained_and_its_absence_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="`spqr miniature train --uneven`"):
        resolve(UNEVEN)
    folder = uneven_folder()
    assert folder.is_relative_to(tmp_path)
    shutil.copytree(resolve("miniature"), folder)
    (folder / "record.json").write_text("{}")
    assert resolve(UNEVEN) == folder
    assert source_recipe(UNEVEN)["files"].keys() > {"unet/config.json"}  # type: ignore[union-attr]
    assert "commit" not in source_recipe(UNEVEN)
    assert load_settings(tmp_path, {"base": UNEVEN}).preset == "miniature"
    assert main(["miniature", "train", "--uneven"]) == 4
    assert "choose another --out" in capsys.readouterr().err
    assert main(["miniature", "train"]) == 4
    assert "Give --out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.trains
def test_training_the_uneven_miniature_repeats_itself_and_moves_encoder_and_denoiser_alone(
    tmp_path: Path,
) -> None:
    from spqr_checks.miniature.training import uneven

    for name in ("one", "two"):
        uneven.train(tmp_path / name, 3, 0.004)
    own, one, two = (
        source_recipe(str(p))
        for p in (resolve("miniature"), *(tmp_path / name for name in ("one", "two")))
    )
    assert one == two
    weights = {n for n in one["files"] if n.endswith(".safetensors")}  # type: ignore[union-attr]
    moved = {n for n in weights if own["files"][n] != one["files"][n]}  # type: ignore[index, call-overload]
    assert {n.split("/")[0] for n in moved} == {"unet", "text_encoder"}
    assert {n.split("/")[0] for n in weights - moved} == {"vae"}


@pytest.mark.slow
@pytest.mark.trains
def test_training_the_miniature_repeats_itself_in_another_process(tmp_path: Path) -> None:
    from spqr_checks.hashing import file_digest

    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import torch._dynamo\n"
        "torch._dynamo.config.disable = True\n"  # generating code for two steps takes minutes
        "from spqr_checks.miniature.training.build import Budget, train_all\n"
        "train_all(Path(sys.argv[1]), 3, Budget(2, 1, 1, 1, 2, 64, 64))\n"
    )
    digests = []
    passive = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    for name, run in (("one", forked.anew), ("two", forked.run)):
        out = tmp_path / name
        done = run([sys.executable, "-c", code, str(out)], tmp_path, passive, 300)
        assert done.returncode == 0, done.stderr
        shipped = [
            p for part in ("pipeline", "clip", "classifier") for p in out.glob(f"{part}/**/*")
        ]
        digests.append({str(p.relative_to(out)): file_digest(p) for p in shipped if p.is_file()})
    assert digests[0] == digests[1]
    assert sum(name.endswith(".safetensors") for name in digests[0]) == 5
    assert "pipeline/tokenizer/tokenizer.json" in digests[0]


def test_pairs_of_the_miniature_are_built_from_its_own_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.csv"
    assert main(["pairs", "build", "--table", "miniature", "--count", "2", "--out", str(out)]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1 + 2 * 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["store", "verify", "--store", "none"], "none: no store is there"),
        (["store", "usage", "--store", "file"], "file: no store is there"),
        (["report", "none.json", "--out", "out"], "none.json cannot be read"),
        (["report", "pipe", "--out", "out"], "pipe: is a pipe, socket or device"),
        (["miniature", "prompts", "--out", "file"], "file: File exists"),
        (["estimate", "--base", "~nobody\x1b[1m/x", "--preset", "miniature"], "\\x1b[1m"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_a_place_that_will_not_do_is_a_sentence_and_exit_code_4(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert main(arguments) == 4
    captured = capsys.readouterr()
    assert said in captured.err
    assert "\x1b" not in captured.err
    assert not (tmp_path / "out").exists()
