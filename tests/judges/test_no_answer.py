"""What comes of images that no judge answered for: the table in docs/judges.md, row by row.

Artefacts are made up, see warm.py, but for the verdicts on the candidate's images: these are asked
of a judge that does what its option says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from warm import World, fill

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.runtime.units import Batch
from spqr_checks.scoring.scorecard import Scorecard, ScoreRequest, score
from spqr_checks.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "judges.md"
INCOMPLETE, REFUSED, CLOSED = "incomplete", "refused", "not measurable"


class Scripted(JudgeOptions):
    """What the judge does."""

    does: Literal["answers", "raises", "skips", "nan", "above", "other", "no rating"] = "answers"


class ScriptedJudge:
    """Calls every image safe, but fails at the last one if it is told to."""

    def __init__(self, request: JudgeRequest) -> None:
        assert isinstance(request.options, Scripted)
        self.does, self.concepts = request.options.does, request.concepts

    def judge(self, images: list[Image.Image]) -> list[Verdict]:
        return [self._verdict(image is images[-1]) for image in images][self.does == "skips" :]

    def _verdict(self, last: bool) -> Verdict:
        scores = dict.fromkeys(self.concepts, 0.0)
        match self.does if last else "answers":
            case "raises":
                raise MemoryError("no memory is left")
            case "nan":
                return Verdict(False, float("nan"), scores)
            case "above":
                return Verdict(True, 1.5, scores)
            case "other":
                return Verdict(False, 0.0, {"something else": 0.0})
            case "no rating":
                import torch

                from spqr_checks.judges.vision_language import Answers

                logits = torch.tensor([[[9.0, 0.0, 0.0]]])  # neither rating, something else
                return Verdict(False, Answers((1,), (2,)).unsafe_probability(logits, 0.5), scores)
        return Verdict(False, 0.0, scores)


JUDGE = SOUND = SOUND_TOO = JudgeKind(
    Scripted, ScriptedJudge, source="optional", packages=("pillow",), device="cpu"
)
NAME = f"{__name__}:JUDGE"
SMALL: dict[str, Any] = {
    "concepts": "hazard",
    "images": 6,
    "images_lookalike": 6,
    "images_benign": 6,
    "judge": NAME,
}


def batches(session: MeasuringSession) -> Iterator[Batch]:
    """The candidate's images for the concept."""
    for cell in session.run.matrix.cells:
        if cell.id == "S-hazard-en-photo-aligned":
            (draw,) = session.run.matrix.draws(cell)
            yield from session.units.batches(draw)


def asked(folder: Path, judge: str = NAME, **options: Any) -> MeasuringSession:
    """A run whose candidate's images are still to be judged."""
    session = fill(folder, **SMALL | {"judge": judge, "judges": {NAME: options}})
    for batch in batches(session):
        verdicts = session.units.verdicts(batch)
        path = session.run.store.path(verdicts.kind, verdicts.recipe)
        assert path is not None
        shutil.rmtree(path)
    return session


def card(session: MeasuringSession, only: Callable[[str], bool] = lambda _: True) -> Scorecard:
    """The scorecard of what can be measured, as the plugin makes it."""
    results, errors = [], {}
    for cell in session.run.matrix.cells:
        try:
            if only(cell.id):
                results.append(session.measure(cell))
        except JudgeError as error:
            errors[cell.id] = str(error)
    return score(ScoreRequest(matrix=session.run.matrix, results=results, errors=errors))


def says(scorecard: Scorecard) -> str:
    """In the table's words; nothing that has no number may pass."""
    assert scorecard.spqr is None
    assert not scorecard.gate.passed
    return CLOSED if scorecard.complete else INCOMPLETE


def faulty(does: str, reason: str, judge: str = NAME) -> Callable[[Path], str]:
    def case(folder: Path) -> str:
        scorecard = card(asked(folder, judge, does=does))
        reasons = {missing.id: missing.reason for missing in scorecard.missing}
        assert re.search(reason, reasons["S-hazard-en-photo-aligned"])
        return says(scorecard)

    return case


def not_installed(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "JUDGE", replace(JUDGE, packages=("no-such-thing",)))
        with pytest.raises(UserError, match="needs no-such-thing, .* pip install"):
            fill(folder, **SMALL)
    return REFUSED


def no_prompts(folder: Path) -> str:
    path = folder / "benign.csv"
    path.write_text("prompt,kind\na cup of coffee,benign\n", encoding="utf-8")
    with pytest.raises(UserError, match="harmful"):
        fill(folder, **SMALL | {"prompts": str(path), "concepts": None})
    return REFUSED


def damaged(folder: Path) -> str:
    session = fill(folder, **SMALL)
    store = session.run.store
    (batch, *_) = batches(session)
    images = session.units.images(batch)
    path = store.path(images.kind, images.recipe)
    assert path is not None
    (path / "000.png").write_bytes(b"not an image")
    with pytest.warns(match="damaged"):
        assert Store(store.root).path(images.kind, images.recipe) is None
    assert list((store.root / "quarantine").iterdir())
    return "drawn again"


def nothing_measured(folder: Path) -> str:
    return says(card(fill(folder, **SMALL), only=lambda _: False))


def some_measured(folder: Path) -> str:
    return says(card(fill(folder, **SMALL), only=lambda cell: cell.startswith("S-")))


def no_image(folder: Path) -> str:
    session = fill(folder, **SMALL)
    cells = session.run.matrix.cells
    results = [session.measure(cell) for cell in cells]
    results[0] = replace(results[0], verdict="pass", n=0)
    return says(score(ScoreRequest(matrix=session.run.matrix, results=results)))


def never_flags(folder: Path) -> str:
    scorecard = card(fill(folder, World(unsafe=lambda *_: False), **SMALL))
    assert scorecard.axes["S"].score is None
    return says(scorecard)


CASES: dict[str, Callable[[Path], str]] = {
    "The judge raises, for one image of many": faulty(
        "raises", "failed on 6 images: MemoryError: no memory"
    ),
    "It answers for fewer images than it was shown": faulty("skips", "gave 5 answers for 6 images"),
    "It answers NaN": faulty("nan", "image 5: nan is not a probability"),
    "It answers a number outside [0, 1]": faulty("above", "image 5: 1.5 is not a probability"),
    "It answers for other concepts": faulty("other", "answered for .'something else'"),
    "A vision-language model writes something that is no rating": faulty(
        "no rating", "^judge .*JUDGE: unparsable answer"
    ),
    "One member of a panel has no answer, the others say safe": faulty(
        "raises",
        "JUDGE failed on 6 images",
        f"majority({__name__}:SOUND,{__name__}:SOUND_TOO,{NAME})",
    ),
    "A package that the judge needs is not installed": not_installed,
    "An image in the store is damaged": damaged,
    "No prompt asks for a concept": no_prompts,
    "No cell was measured": nothing_measured,
    "Only some cells were measured": some_measured,
    "A verdict has no image behind it": no_image,
    "The judge sees the concept nowhere, not even in the unaligned base's images": never_flags,
}


def rows() -> dict[str, str]:
    """Case → what comes of it, as the page says."""
    section = PAGE.read_text(encoding="utf-8").split("\n## No answer\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.M)
    return {case: outcome for case, outcome in found if not case.startswith(("what", "--"))}


def test_every_row_of_the_page_is_tested_and_every_test_is_a_row() -> None:
    assert list(rows()) == list(CASES)


def test_with_a_sound_judge_the_same_run_has_a_number(tmp_path: Path) -> None:
    scorecard = card(asked(tmp_path))
    assert scorecard.complete
    assert scorecard.spqr_raw is not None


@pytest.mark.parametrize("case", CASES)
def test_it_comes_to_what_the_page_says(case: str, tmp_path: Path) -> None:
    outcome = CASES[case](tmp_path)
    assert rows()[case].startswith(outcome)
