"""Allure: what allure-pytest cannot know of a cell, and the verdict that no test can give.

`attach_cell` speaks from inside the test, where allure-pytest listens. The other functions are for
the controller of a run, where it does not: they write files into the folder of results.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import allure
from allure_commons import plugin_manager
from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import (
    ATTACHMENT_PATTERN,
    Attachment,
    Label,
    Parameter,
    Status,
    StatusDetails,
    TestResult,
    TestStepResult,
)
from allure_commons.types import AttachmentType, LabelType
from allure_commons.utils import md5, now, uuid4

from spqr_checks.errors import UserError
from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES
from spqr_checks.reports.files import replace
from spqr_checks.reports.images import (
    SHOWN,
    Judged,
    chosen,
    flag_word,
    grid,
    judged_everywhere,
    sheet,
    tile,
)
from spqr_checks.reports.json_file import environment
from spqr_checks.reports.markdown import described, summary
from spqr_checks.reports.pairs import Pair, pairs
from spqr_checks.reports.selection import axis_rows, headline, interval_name
from spqr_checks.reports.text import VERDICTS, axis_row, message, numbers, one_line, score, shorten
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

GATE = "SPQR gate"
_IMAGE_DIFF = "application/vnd.allure.image.diff"
_PAIRS = 12
_ENVIRONMENT = "# written by spqr-checks\n"
_MATCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Safety regression": (("safety regression",), (Status.FAILED,)),
    "Utility loss": (("utility loss",), (Status.FAILED,)),
    "Inconclusive": (("inconclusive",), (Status.FAILED,)),
    "Not measurable": (("not measurable", "control failed"), (Status.SKIPPED, Status.FAILED)),
    GATE: (("SPQR",), (Status.FAILED,)),
}
"""Category → first words of a test's message (see `spqr_checks.reports.text.message`), statuses."""


class _Shown:
    """A parameter's text as it is: Allure shows the ``repr`` of a value, text within quotes."""

    def __init__(self, text: str) -> None:
        self._text = one_line(text)

    def __repr__(self) -> str:
        return self._text


# ---- inside a test ---------------------------------------------------------------------------


def attach_cell(result: CellResult, store_root: Path, blur_flagged: bool = True) -> None:
    """Describe the cell in the Allure result of the test that runs right now.

    Does nothing where Allure does not listen. Call it in the test's body: allure-pytest writes its
    own description over that of a fixture.

    Args:
        result: the cell's measurement.
        store_root: the folder that image paths are relative to.
        blur_flagged: whether images that are flagged, or not judged, are made unrecognisable.

    Raises:
        UserError: an image of the cell is missing or unreadable.
    """
    if not plugin_manager.hook.attach_data.get_hookimpls():
        return
    cell = result.cell
    allure.dynamic.title(one_line(cell.id))
    allure.dynamic.epic(f"{cell.axis} · {AXES[cell.axis].title}")
    allure.dynamic.feature(cell.check.replace("_", " "))
    allure.dynamic.story(one_line(cell.concept))
    allure.dynamic.severity(_severity(result))
    # by these the configuration of Allure 3 tells environments apart
    allure.dynamic.label("spqr.language", one_line(cell.language))
    allure.dynamic.label("spqr.state", one_line(cell.state.name))
    _parameter("cell", cell.id)
    for name in ("concept", "category", "language", "domain"):
        _parameter(name, getattr(cell, name))
    _parameter("attack", cell.attack or "none")
    _parameter("state", cell.state.name)
    for name, value in numbers(result):
        # kept out of the test's identity: history compares the same cell across runs
        _parameter(name, value, excluded=True)
    allure.dynamic.description_html(_description(result))
    if result.images:
        shown = min(SHOWN, len(result.images))
        name = f"{shown} of {len(result.images)} images"
        name += ", all but those judged safe blurred" * blur_flagged
        picture = sheet(result, store_root, blur_flagged)
        allure.attach(picture, name=name, attachment_type=AttachmentType.PNG)


def attach_own_check(claim: str, said: str) -> None:
    """Describe a claim of a user's own test in the Allure result of the test that runs now."""
    if plugin_manager.hook.attach_data.get_hookimpls():
        _parameter(f"own check {one_line(claim)}", said, excluded=True)


def _parameter(name: str, value: str, excluded: bool | None = None) -> None:
    allure.dynamic.parameter(name, _Shown(value), excluded=excluded)


def _severity(result: CellResult) -> allure.severity_level:
    levels = allure.severity_level
    if result.cell.is_control:
        return levels.MINOR
    return levels.CRITICAL if AXES[result.cell.axis].critical else levels.NORMAL


def _description(result: CellResult) -> str:
    """HTML: the reason, and the prompts that belong to the numbers on the contact sheet."""
    reason = message(result) if result.verdict != "pass" else "passed"
    parts = [f"<p>{html.escape(reason)}</p>"]
    if result.images:
        parts.append("<p>Prompts by their numbers on the sheet of images:</p>")
    # numbered by hand, since Allure takes the numbers of lists away
    for number, ref in enumerate(chosen(result.images), 1):
        text = html.escape(one_line(ref.prompt))
        known = ", ".join(filter(None, (f"seed {ref.seed}", flag_word(ref))))
        said = f'<bdi dir="auto">{text}</bdi> ({known})'
        parts.append(f"<div>{number} · {said}</div>")
    return "".join(parts)


# ---- on the controller -----------------------------------------------------------------------


def write_environment(alluredir: Path, card: Scorecard) -> None:
    """environment.properties: what the overview's Environment box shows.

    Raises:
        UserError: somebody else's is there, or the place cannot be written.
    """
    system = environment()
    versions = system["versions"]
    assert isinstance(versions, Mapping)
    values = {
        "SPQR": headline(card).removeprefix("SPQR "),
        "protocol": card.protocol,
        "candidate": described(card.candidate),
        "candidate.fingerprint": digest(card.candidate),
        "base": described(card.base),
        "base.fingerprint": digest(card.base),
    }
    for number, judge in enumerate(card.judges, 1):
        values[f"judge{number}"] = described(judge)
        values[f"judge{number}.fingerprint"] = digest(judge)
    values |= {"python": str(system["python"]), "platform": str(system["platform"])}
    values |= {name: str(version) for name, version in versions.items() if version is not None}
    lines = (f"{key} = {_property(value)}\n" for key, value in values.items())
    content = "".join((_ENVIRONMENT, *lines)).encode("ascii")
    put(alluredir / "environment.properties", content, _is_marked)


def write_categories(alluredir: Path) -> None:
    """categories.json, which Allure 2 reads; raises UserError as `write_environment`."""
    text = json.dumps(categories(), indent=1) + "\n"
    put(alluredir / "categories.json", text.encode(), _are_our_categories)


def put(path: Path, content: bytes, is_ours: Callable[[bytes], bool]) -> None:
    """Writes a file that has one name in every folder of results; raises UserError as `replace`."""
    replace(path, content, is_ours, "It stays as it is; --clean-alluredir begins anew.")


def _is_marked(content: bytes) -> bool:
    return content.startswith(_ENVIRONMENT.encode())


def _are_our_categories(content: bytes) -> bool:
    """Whether these are names that we gave, which their patterns may be younger than."""
    try:
        return [one["name"] for one in json.loads(content)] == [c["name"] for c in categories()]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def categories() -> list[dict[str, Any]]:
    """Why tests did not pass, in the words of this program: names, statuses, messages."""
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "messageRegex": rf"(Failed: |Skipped: )?({'|'.join(words)})[\s\S]*",
            "matchedStatuses": list(statuses),
        }
        for name, (words, statuses) in _MATCHES.items()
    ]
    known = "|".join(word for words, _ in _MATCHES.values() for word in words)
    unknown = {
        "name": "Infrastructure error",
        "matchedStatuses": [Status.BROKEN, Status.FAILED],
        "messageRegex": rf"(?!(Failed: |Skipped: )?({known}))[\s\S]*",
    }
    return [*found, unknown]


def write_verdict(alluredir: Path, card: Scorecard, store: Path | None = None) -> None:
    """A test result of its own for the verdict of the run, with a step for each axis.

    Args:
        store: the folder that image paths are relative to; if given, there is a step more with
            images before and after fine-tuning side by side, flagged ones blurred.

    Raises:
        UserError: the folder cannot be written.
    """
    name = "spqr_checks#gate"
    status = Status.PASSED if card.gate.passed else Status.FAILED
    said = [one_line(line) for line in (headline(card), *card.gate.reasons)]
    body = TestResult(
        uuid=uuid4(),
        name=GATE,
        fullName=name,
        historyId=md5(name),
        testCaseId=md5(name),
        status=str(status if card.complete else Status.BROKEN),
        statusDetails=StatusDetails(message="\n".join(said)),
        stage="finished",
        start=now(),
        stop=now(),
        descriptionHtml="".join(f"<p>{html.escape(line)}</p>" for line in said),
        parameters=[
            Parameter(name="protocol", value=card.protocol),
            Parameter(name="SPQR", value=score(card.spqr), excluded=True),
            Parameter(name="SPQR raw", value=score(card.spqr_raw), excluded=True),
        ],
        steps=[_step(name, axis, interval_name(card)) for name, axis in axis_rows(card)],
        labels=[
            Label(LabelType.EPIC, GATE),
            Label(LabelType.SUITE, GATE),
            Label(LabelType.SEVERITY, allure.severity_level.BLOCKER.value),
            Label(LabelType.FRAMEWORK, "pytest"),
        ],
    )
    source = ATTACHMENT_PATTERN.format(prefix=uuid4(), ext="md")
    body.attachments.append(Attachment(name="summary", source=source, type="text/markdown"))
    try:
        logger = AllureFileLogger(alluredir)
        if store is not None and (found := pairs(card)):
            body.steps.append(_comparison(found, store, logger, judged_everywhere(card)))
        logger.report_attached_data(summary(card).encode(), source)
        logger.report_result(body)
    except OSError as error:
        raise UserError(
            f"The Allure results folder {alluredir} cannot be written: {error.strerror or error}.\n"
            "Make room or give another --alluredir."
        ) from error


def _step(name: str, axis: AxisSummary, interval: str) -> TestStepResult:
    names = ("score", "raw", interval, *VERDICTS.values())
    return TestStepResult(
        name=f"{name}: {score(axis.score)}",
        status=_axis_status(axis),
        stage="finished",
        start=now(),
        stop=now(),
        parameters=list(map(Parameter, names, axis_row(axis))),
    )


def _comparison(
    found: Sequence[Pair], store: Path, logger: AllureFileLogger, judged: Judged
) -> TestStepResult:
    """A step with the pairs that say most, each in the view that Allure has for two images."""
    step = TestStepResult(
        name="before and after fine-tuning, flagged images blurred",
        status=str(Status.PASSED),
        stage="finished",
        start=now(),
        stop=now(),
    )
    for pair in found[:_PAIRS]:
        name = one_line(f"{pair.change}: {shorten(pair.after.prompt, 80)} ({pair.where})")
        both = [judged(ref) for ref in (pair.before, pair.after)]
        try:
            shown = [*(tile(ref, store) for ref in both), grid(both, store, 2)]
        except UserError as error:
            step.statusDetails = StatusDetails(message=str(error))
            break
        coded = (f"data:image/png;base64,{b64encode(one).decode()}" for one in shown)
        content = json.dumps(dict(zip(("expected", "actual", "diff"), coded, strict=True)))
        source = ATTACHMENT_PATTERN.format(prefix=uuid4(), ext="imagediff")
        logger.report_attached_data(content.encode(), source)
        step.attachments.append(Attachment(name=name, source=source, type=_IMAGE_DIFF))
    return step


def _axis_status(axis: AxisSummary) -> str:
    if axis.errors:
        return str(Status.BROKEN)
    if axis.failed or axis.inconclusive:
        return str(Status.FAILED)
    return str(Status.PASSED if axis.passed and axis.score is not None else Status.SKIPPED)


def _property(text: str) -> str:
    """A value for a Java properties file: one line of ASCII."""
    units = one_line(text).replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(code) if code <= 0x7E else f"\\u{code:04x}" for code in codes)
