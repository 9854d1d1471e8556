"""`spqr guard`: input filters trained on prompts, and how often they err on others."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from spqr_checks.cli.arguments import assigned, names, say, settings_of
from spqr_checks.errors import UserError
from spqr_checks.guards.base import CheckedGuard, TrainingRequest
from spqr_checks.hashing import Json
from spqr_checks.prompts.prompt import ALL, Prompt
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.statistics.calibration import Calibration
from spqr_checks.tools.calibration.file import Counts, JudgeRecord

_BATCH = 64


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions."""
    actions = parser.add_subparsers(required=True, metavar="action")
    train = actions.add_parser(
        "train",
        help="train an input filter on prompts",
        description="Writes a guard into a new folder, for `--spqr-guard NAME=DIR`. It reads with "
        "the base's text encoder, of which the folder holds a copy.",
    )
    train.add_argument("guard", metavar="NAME", help="latent-guard, …; an unknown name lists all")
    train.add_argument("--out", type=Path, required=True, metavar="DIR")
    train.add_argument("--base", metavar="PIPELINE", help="directory, Hub id or miniature")
    train.add_argument("--prompts", metavar="FILES", help="harmful and benign ones to learn from")
    train.add_argument("--seed", type=int, help="decides every random choice (default 0)")
    said = "an option of the training, as in --set steps=200"
    train.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help=said)
    train.set_defaults(command=train_guard)
    calibrate = actions.add_parser(
        "calibrate",
        help="how many harmful prompts guards block, and how many others they let pass",
        description="Asks guards for the prompts of a run here. Sensitivity: harmful prompts that "
        "are blocked; specificity: benign and look-alike prompts that are let pass.",
    )
    calibrate.add_argument("guards", nargs="+", metavar="GUARD", help="as for --spqr-guard")
    calibrate.add_argument("--prompts", metavar="FILES", help="instead of the run's")
    calibrate.add_argument("--languages", metavar="CODES", help="only prompts in these")
    calibrate.set_defaults(command=calibrate_guards)
    for action in (train, calibrate):
        action.add_argument("--concepts", metavar="NAMES", help="concepts or categories")


def train_guard(options: argparse.Namespace) -> int:
    """Trains a guard. Raises UserError for the user's mistakes, before anything is trained."""
    from spqr_checks.guards.folder import read_record
    from spqr_checks.guards.registry import GUARDS, parse

    kind, name = GUARDS.get(options.guard), options.guard
    if kind.train is None:
        raise UserError(f"guard {name!r} learns nothing; use it as it is: --spqr-guard {name}")
    training = parse(kind, name, assigned({}, options.set), training=True)
    fields = {"base": "base", "prompts": "alignment_prompts"}
    settings = settings_of(options, fields)
    if not settings.alignment_prompts:
        raise UserError("nothing to learn from: set --prompts to files of harmful and benign ones")
    prompts = PromptSet.load(settings.alignment_prompts).narrowed(
        names(options.concepts) if options.concepts else None, settings.alignment_languages
    )
    request = TrainingRequest(
        settings.base,
        tuple((p.concept, p.text) for p in prompts.prompts if p.kind == "harmful"),
        tuple(p.text for p in prompts.prompts if p.kind != "harmful"),
        options.seed or 0,
    )
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there and not empty; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        kind.train(request, training, work)
        work.chmod(0o755)
        work.replace(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    blocked, harmful, passed, benign = read_record(str(out), name).held_out
    say(
        f"of prompts held out, {blocked} of {harmful} harmful ones blocked, "
        f"{passed} of {benign} benign ones let pass"
    )
    say(out)
    return 0


def calibrate_guards(options: argparse.Namespace) -> int:
    """Prints sensitivity and specificity of each guard, by concept and by language.

    Returns:
        0, or 3 if a guard could not answer for every prompt.

    Raises:
        UserError: for a mistake in the settings, before any model is loaded.
    """
    from rich.console import Console

    from spqr_checks.errors import GuardError
    from spqr_checks.guards.registry import guard_recipes, load_guards
    from spqr_checks.tools.calibration.file import show

    settings = settings_of(options, {"prompts": "prompts"})
    if not settings.prompts:
        raise UserError("which prompts? Set --prompts to a file of harmful and benign ones")
    policy = PromptSet.load(settings.prompts)
    chosen = policy.narrowed(
        names(options.concepts) if options.concepts else None,
        names(options.languages) if options.languages else None,
    )
    about = options.guards, policy.concepts
    recipes = guard_recipes(*about, settings.guards, settings.device)
    loaded = load_guards(*about, settings.device, settings.guards)
    try:
        records = [
            _record(guard, recipe, chosen.prompts)
            for guard, recipe in zip(loaded, recipes, strict=True)
        ]
    except GuardError as error:
        say(f"spqr: {error}", file=sys.stderr)
        return 3
    show(records, [], Console())
    return 0


def _record(guard: CheckedGuard, recipe: dict[str, Json], prompts: Sequence[Prompt]) -> JudgeRecord:
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    parts = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    answers = [answer.blocked for part in parts for answer in guard.answer(part)]
    blocked = dict(zip(texts, answers, strict=True))

    def counts(of: Callable[[Prompt], bool]) -> Counts:
        seen = Counter((p.kind == "harmful", blocked[p.text]) for p in prompts if of(p))
        hits, passed = seen[True, True], seen[False, False]
        return hits, hits + seen[True, False], passed, passed + seen[False, True]

    every = counts(lambda _: True)
    if not (every[1] and every[3]):
        raise UserError(
            f"{every[1]} harmful and {every[3]} other prompts; some of both kinds are needed"
        )
    groups = [(field, name) for field in ("concept", "language") for name in _named(prompts, field)]
    by_group = {
        name: counts(lambda p, field=field, name=name: getattr(p, field) == name)  # type: ignore[misc]
        for field, name in groups
    }
    return JudgeRecord(guard.name, recipe, Calibration(*every), by_group)


def _named(prompts: Sequence[Prompt], field: str) -> list[str]:
    return sorted({getattr(prompt, field) for prompt in prompts} - {ALL})
