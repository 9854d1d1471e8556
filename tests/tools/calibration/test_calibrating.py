"""`spqr judge calibrate`, with scripted judges and with the packaged one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spqr_checks.cli.main import command_parser, main
from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import digest
from spqr_checks.judges import registry
from spqr_checks.judges.base import Verdict
from spqr_checks.statistics.calibration import Calibration
from spqr_checks.tools.calibration.file import calibration_of

CONCEPTS = "hazard,red triangle"


class Reading:
    """A judge that reads its answer off a colour of the first pixel."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def judge(self, images: Sequence[Image.Image]) -> list[Verdict]:
        values = [image.getpixel((0, 0))[self._channel] for image in images]  # type: ignore[index]
        if 9 in values:
            raise JudgeError("image 3: no answer")
        return [Verdict(value == 1, float(value == 1), {}) for value in values]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judges ``red``, ``green`` and ``blue``."""
    channels = {"red": 0, "green": 1, "blue": 2}

    def recipe(spec: str, threshold: float, concepts: Any, options: Any) -> dict[str, Any]:
        return {"judge": spec, "threshold": threshold, "concepts": list(concepts)}

    def load(spec: str, *_: Any) -> Reading:
        return Reading(channels[spec])

    monkeypatch.setattr(registry, "judge_recipe", recipe)
    monkeypatch.setattr(registry, "load_judge", load)


def labelled(folder: Path, rows: Sequence[tuple[tuple[int, int, int], int, str]]) -> Path:
    """Images of a colour, whether they are unsafe, and what they show."""
    lines = ["image,unsafe,concept"]
    for number, (colour, unsafe, concept) in enumerate(rows):
        Image.new("RGB", (2, 2), colour).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{unsafe},{concept}")
    file = folder / "labels.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


ROWS = [
    ((1, 1, 1), 1, "sign"),
    ((1, 1, 1), 1, "sign"),
    ((1, 0, 1), 1, "star"),
    ((0, 0, 1), 1, ""),
    ((1, 0, 1), 0, "sign"),
    ((0, 1, 1), 0, ""),
    ((0, 0, 1), 0, ""),
]


def run(*arguments: object) -> int:
    given = ["judge", "calibrate", *map(str, arguments)]
    options = command_parser(given).parse_args(given)
    code: int = options.command(options)
    return code


@pytest.mark.usefixtures("scripted")
class TestScripted:
    def test_counts_are_of_each_judge_and_concept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "made" / "calibration.json"
        labels = labelled(tmp_path, ROWS)
        assert run("red", "green", "--labels", labels, "--out", out, "--concepts", CONCEPTS) == 0
        value = json.loads(out.read_text())
        red, green = value["judges"]
        assert red["counts"] == [3, 4, 2, 3]
        assert green["counts"] == [2, 4, 2, 3]
        assert red["concepts"] == {"sign": [2, 2, 0, 1], "star": [1, 1, 0, 0]}
        assert red["sensitivity"]["value"] == 0.75
        assert red["specificity"]["interval"][0] < 2 / 3 < red["specificity"]["interval"][1]
        assert value["labels"]["images"] == 7
        # agree on 4 of 7; 4 and 3 flagged
        expected = (4 / 7 - (12 + 12) / 49) / (1 - 24 / 49)
        assert value["agreement"][0]["kappa"] == pytest.approx(expected)
        text = capsys.readouterr().out
        assert "red" in text
        assert "3/4 75 %" in text
        # the images of signs, of which one is safe
        assert "sign" in text
        assert "0/1 0 %" in text
        assert f"Cohen's kappa of red and green: {expected:.2f}" in text
        assert "; alike on 4 of 7" in text

    def test_what_is_written_fits_the_judge_it_was_made_with(self, tmp_path: Path) -> None:
        out = tmp_path / "calibration.json"
        labels = labelled(tmp_path, ROWS)
        given = ("--labels", labels, "--out", out, "--concepts", CONCEPTS, "--threshold", "0.7")
        assert run("red", "green", *given) == 0
        recipe = {"judge": "green", "threshold": 0.7, "concepts": ["hazard", "red triangle"]}
        assert calibration_of(out, recipe) == Calibration(2, 4, 2, 3)
        assert json.loads(out.read_text())["judges"][1]["recipe_digest"] == digest(recipe)
        with pytest.raises(UserError, match=r"judge\.threshold is 0\.7 in the file"):
            calibration_of(out, recipe | {"threshold": 0.5})

    def test_it_repeats_to_the_byte(self, tmp_path: Path) -> None:
        out, labels = tmp_path / "calibration.json", labelled(tmp_path, ROWS)
        texts = []
        for _ in range(2):
            run("red", "blue", "--labels", labels, "--out", out, "--concepts", CONCEPTS)
            texts.append(out.read_bytes())
        assert texts[0] == texts[1]

    @pytest.mark.parametrize(("second", "alike"), [((0, 0, 0), 2), ((0, 0, 1), 1)])
    def test_agreement_with_a_judge_that_says_one_thing_of_all_is_said_to_mean_nothing(
        self,
        second: tuple[int, int, int],
        alike: int,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "calibration.json"
        labels = labelled(tmp_path, [((0, 0, 0), 1, ""), (second, 0, "")])
        assert run("red", "blue", "--labels", labels, "--out", out, "--concepts", "sign") == 0
        (agreement,) = json.loads(out.read_text())["agreement"]
        assert (agreement["kappa"], agreement["interval"], agreement["alike"]) == (
            None,
            None,
            alike,
        )
        said = "says nothing, since one of them says the same of every image"
        assert f"red and blue: {said}; alike on {alike} of 2" in capsys.readouterr().out

    def test_a_judge_without_an_answer_leaves_no_file(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "calibration.json"
        labels = labelled(tmp_path, [*ROWS, ((0, 9, 0), 0, "")])
        assert run("red", "green", "--labels", labels, "--out", out, "--concepts", CONCEPTS) == 3
        assert not out.exists()
        error = capsys.readouterr().err
        assert "no answer" in error
        assert "no calibration was written" in error

    def test_a_judge_named_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="named twice"):
            run("red", "red", "--labels", labelled(tmp_path, ROWS), "--concepts", "sign")


def test_the_packaged_judge_is_good_at_what_the_renderer_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to a run that accepts the file."""
    from warm import BASE_SETTINGS

    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.miniature.renderer import render
    from spqr_checks.miniature.scene import benign_scene, concept_scene
    from spqr_checks.miniature.vocabulary import CONCEPTS as KNOWN
    from spqr_checks.runtime.run import Run
    from spqr_checks.settings import load_settings

    monkeypatch.chdir(tmp_path)
    rng, rows = random.Random(0), ["image,unsafe"]
    for number in range(60):
        unsafe = number % 2
        scene = concept_scene(rng, KNOWN[number % len(KNOWN)]) if unsafe else benign_scene(rng)
        Image.fromarray(render(scene, rng)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{unsafe}")
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    judge = "classifier=miniature:classifier"
    assert main(["judge", "calibrate", judge, "--labels", "labels.csv"]) == 0
    settings = BASE_SETTINGS | {"store": ".spqr", "calibration": "calibration.json"}
    session = MeasuringSession(Run.from_settings(load_settings(tmp_path, settings)))
    assert session.calibration is not None
    assert session.calibration.sensitivity > 0.8
    assert session.calibration.specificity > 0.8


def test_mistakes_are_found_before_a_judge_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = str(labelled(tmp_path, ROWS))
    monkeypatch.setattr(registry, "load_judge", lambda *_: pytest.fail("loaded"))
    assert main(["judge", "calibrate", "oracle=x", "--labels", labels]) == 4
    assert "unknown judge 'oracle'" in capsys.readouterr().err
    assert main(["judge", "calibrate", "clip=miniature:clip", "--labels", "none.csv"]) == 4
    assert "none.csv" in capsys.readouterr().err
    assert not (tmp_path / "calibration.json").exists()
