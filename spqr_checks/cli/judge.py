"""`spqr judge`: how often judges err, on images that people have labelled."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.cli.arguments import names, say, settings_of
from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import file_digest
from spqr_checks.statistics.calibration import Calibration, cohens_kappa
from spqr_checks.tools.calibration.file import Agreement, JudgeRecord, to_json
from spqr_checks.tools.calibration.labels import Label, image_batches, read_labels
from spqr_checks.user_files import replace_text

if TYPE_CHECKING:
    from spqr_checks.settings import Settings

UNANSWERED = 3
_FIELDS = {"threshold": "judge_threshold", "prompts": "prompts", "device": "judge_device"}
"""Options of the command and the settings that they stand for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's action."""
    actions = parser.add_subparsers(required=True, metavar="action")
    command = actions.add_parser(
        "calibrate",
        help="sensitivity, specificity and agreement of judges on labelled images",
        description="Judges labelled images and writes what was found, for "
        "`--spqr-calibration FILE`. Threshold, concepts and options are those of a run here.",
    )
    command.add_argument("judges", nargs="+", metavar="JUDGE", help="as for --spqr-judge")
    said = "CSV or JSON lines: image (relative to the file), unsafe, optional concept"
    command.add_argument("--labels", type=Path, required=True, metavar="FILE", help=said)
    command.add_argument("--out", type=Path, default=Path("calibration.json"), metavar="FILE")
    command.add_argument("--threshold", type=float, metavar="P", help="that counts as unsafe")
    command.add_argument("--concepts", metavar="NAMES", help="instead of those of the prompts")
    command.add_argument("--prompts", metavar="FILES", help="whose concepts are looked for")
    command.add_argument("--device", help="where the judges compute")
    command.set_defaults(command=calibrate)


def calibrate(options: argparse.Namespace) -> int:
    """Judges the labelled images, prints a table and writes the calibration.

    Returns:
        0, or 3 if a judge could not answer for every image; nothing is written then.

    Raises:
        UserError: for a mistake in the labels or settings, before any model is loaded.
    """
    from rich.console import Console

    from spqr_checks.judges.registry import judge_recipe
    from spqr_checks.tools.calibration.file import show

    settings = settings_of(options, _FIELDS)
    if len(set(options.judges)) != len(options.judges):
        raise UserError("a judge is named twice; name each once")
    labels = read_labels(options.labels)
    concepts = _concepts(options.concepts, settings)
    threshold, tables = settings.judge_threshold, settings.judges
    recipes = {spec: judge_recipe(spec, threshold, concepts, tables) for spec in options.judges}
    try:
        answers = {spec: _answers(spec, settings, concepts, labels) for spec in options.judges}
    except JudgeError as error:
        say(f"spqr: {error}\nspqr: no calibration was written", file=sys.stderr)
        return UNANSWERED
    records = [_record(spec, recipes[spec], labels, answers[spec]) for spec in options.judges]
    agreements = [_agreement((a, b), answers) for a, b in itertools.combinations(options.judges, 2)]
    file = options.labels
    about = {"file": file.name, "digest": file_digest(file), "images": len(labels)}
    replace_text(options.out, to_json(records, agreements, about))
    show(records, agreements, Console())
    say(options.out)
    return 0


def _concepts(named: str | None, settings: Settings) -> tuple[str, ...]:
    """What a run with these settings would look for: every concept of its prompt files."""
    if named is not None:
        return tuple(names(named))
    if not settings.prompts:
        raise UserError("which concepts? Set --prompts to the run's prompt files, or --concepts")
    from spqr_checks.runtime.run import Run

    return Run.from_settings(settings).policy.concepts


def _answers(
    spec: str, settings: Settings, concepts: Sequence[str], labels: Sequence[Label]
) -> list[bool]:
    from spqr_checks.judges.registry import load_judge

    place = settings.judge_device or settings.device
    judge = load_judge(spec, settings.judge_threshold, concepts, place, settings.judges)
    return [verdict.unsafe for batch in image_batches(labels) for verdict in judge.judge(batch)]


def _record(
    spec: str, recipe: Mapping[str, Any], labels: Sequence[Label], answers: Sequence[bool]
) -> JudgeRecord:
    def counts(of: Callable[[Label], bool]) -> tuple[int, int, int, int]:
        both = zip(labels, answers, strict=True)
        seen = Counter((label.unsafe, flag) for label, flag in both if of(label))
        hits, rejects = seen[True, True], seen[False, False]
        return hits, hits + seen[True, False], rejects, rejects + seen[False, True]

    by_concept = {
        name: counts(lambda label, name=name: label.concept == name)  # type: ignore[misc]
        for name in sorted({label.concept for label in labels} - {""})
    }
    return JudgeRecord(spec, recipe, Calibration(*counts(lambda _: True)), by_concept)


def _agreement(pair: tuple[str, str], answers: Mapping[str, Sequence[bool]]) -> Agreement:
    first, second = (answers[name] for name in pair)
    alike = sum(a == b for a, b in zip(first, second, strict=True))
    if len(set(first)) == 1 or len(set(second)) == 1:
        return Agreement(pair, alike, None, None)
    return Agreement(pair, alike, *cohens_kappa(first, second))
