"""Commands of a few lines each; those of more have a module of their own."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.cli.arguments import say
from spqr_checks.errors import UserError
from spqr_checks.scoring.protocols import ANCHORED

if TYPE_CHECKING:
    import pytest

_STORE = "spqr_checks.store.store"
_AXES = ("safety", "prompt-adherence", "quality", "robustness")


def run(parser: argparse.ArgumentParser) -> None:
    """`spqr run`: the three suites; pytest reads the arguments and gives the exit code."""

    def command(options: argparse.Namespace) -> int:
        if {"-h", "--help"} & set(options.rest):
            _options_of_runs().print_help()
            return 0
        begun = time.time()
        import pytest

        from spqr_checks.suites import suite_arguments

        # libraries' deprecations say nothing about the model and would stand above the score;
        # what is damaged in the store, the run's end says
        plain = ["--disable-warnings", "-Wignore", f"-Walways::{_STORE}.StoreWarning"]
        plain.append(f"--rootdir={Path.cwd()}")
        if not {"--collect-only", "--co"} & set(options.rest):  # as pytest: a tree, ids with -q
            plain.append("-q")
        return int(pytest.main([*suite_arguments(), *plain, *options.rest], [_Named(begun)]))

    parser.set_defaults(command=command)


class _Named:
    """A plugin by which pytest knows the command that was typed: its name, and when that was."""

    def __init__(self, begun: float) -> None:
        self._begun = begun

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        parser.prog = "spqr run"

    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        from spqr_checks.pytest_plugin.configuration import BEGUN

        early_config.stash[BEGUN] = self._begun


def _options_of_runs() -> argparse.ArgumentParser:
    """Every setting, in groups; pytest's own options are many, and listed by pytest."""
    from spqr_checks.pytest_plugin.options import OPTIONS

    parser = argparse.ArgumentParser(
        "spqr run",
        usage="spqr run [options] [pytest's options]",
        description="Runs the suites: measures a candidate, decides every cell, writes reports.",
        epilog="All of pytest's options are taken too, such as -n 4 (workers), -k WORDS, -x, "
        "--junitxml FILE and --alluredir DIR; `pytest --help` lists them. Exit codes: 0 the gate "
        "is passed, 1 it is not, 2 interrupted, 3 incomplete, 4 a mistake in options or files.",
    )
    for name in dict.fromkeys(option.group for option in OPTIONS):
        group = parser.add_argument_group(name)
        for option in (option for option in OPTIONS if option.group == name):
            text = option.help.replace("%", "%%")
            group.add_argument(option.flag, metavar=option.metavar, help=text)
    return parser


def score(parser: argparse.ArgumentParser) -> None:
    """`spqr score`: the number of four axis values."""
    parser.add_argument("--protocol", default=ANCHORED)
    for axis in _AXES:
        parser.add_argument(f"--{axis}", type=float, required=True, metavar="X")

    def command(options: argparse.Namespace) -> int:
        from spqr_checks.scoring.protocols import harmonic_mean, protocol_named

        protocol_named(options.protocol)
        axes = (options.safety, options.prompt_adherence, options.quality, options.robustness)
        try:
            say(f"{harmonic_mean(*axes):.3f}")
        except ValueError as error:
            raise UserError(str(error)) from None
        return 0

    parser.set_defaults(command=command)


def report(parser: argparse.ArgumentParser) -> None:
    """`spqr report`: a scorecard shown, and its reports written again."""
    parser.description = "Shows a scorecard as a run's end does; with --out, writes its reports."
    said = "scorecard.json, or the folder that it is in (default: spqr-report)"
    parser.add_argument("scorecard", nargs="?", type=Path, default=Path("spqr-report"), help=said)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write all reports there")
    said = "put results into this model card: model-index, and a section of their own"
    parser.add_argument("--model-card", type=Path, metavar="FILE", help=said)
    said = "where the images of the page are (default: .spqr, if it is there)"
    parser.add_argument("--store", type=Path, metavar="DIR", help=said)
    said = "as --spqr-report-images: blurred, sharp or none"
    images = ("blurred", "sharp", "none")
    parser.add_argument("--images", choices=images, default=images[0], metavar="HOW", help=said)

    def command(options: argparse.Namespace) -> int:
        from rich.console import Console

        from spqr_checks.reports import write_all
        from spqr_checks.reports.json_file import read_scorecard, surroundings
        from spqr_checks.reports.model_card import write_model_card
        from spqr_checks.reports.terminal import show

        card = read_scorecard(options.scorecard)
        if options.model_card is not None:
            write_model_card(card, options.model_card)
        if options.out is not None:
            store = options.store or (Path(".spqr") if Path(".spqr").is_dir() else None)
            around = surroundings(options.scorecard)
            told = write_all(
                card,
                options.out,
                timings=around.get("timings"),
                environment=around.get("environment"),
                store=store,
                images=options.images,
            )
            for warning in told:
                say(f"warning: {warning}", sys.stderr)
        show(card, Console(highlight=False), options.out)
        return 0

    parser.set_defaults(command=command)


def convert(parser: argparse.ArgumentParser) -> None:
    """`spqr convert`: weights of other formats, written as this package reads them."""
    parser.description = "Reads weights only: a file that holds anything else is refused."
    said = "a folder, or a .pt, .pth, .bin, .ckpt or .safetensors file"
    parser.add_argument("source", type=Path, metavar="SRC", help=said)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    said = (
        "folder or Hub id of a pipeline: for the checkpoint of a whole model one of its kind, for "
        "a part of a denoiser the one that has the rest"
    )
    parser.add_argument("--config", default="", metavar="PIPELINE", help=said)

    def command(options: argparse.Namespace) -> int:
        from spqr_checks.models.conversion import convert

        say(convert(options.source, options.out, options.config))
        return 0

    parser.set_defaults(command=command)


def miniature(parser: argparse.ArgumentParser) -> None:
    """`spqr miniature`: the embedded world, trained from nothing, and its prompt files."""
    actions = parser.add_subparsers(required=True, metavar="action")
    train = actions.add_parser("train", help="train its networks from nothing")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path)
    train.add_argument("--scale", type=float, default=1.0, help="factor on all training steps")
    train.add_argument(
        "--uneven", action="store_true", help="behind an encoder that knows English best"
    )
    prompts = actions.add_parser("prompts", help="write its prompt files")
    prompts.add_argument("--out", type=Path, required=True)

    def train_it(options: argparse.Namespace) -> int:
        from spqr_checks.miniature.training import build, uneven
        from spqr_checks.models.sources import uneven_folder

        if options.uneven:
            uneven.train(options.out or uneven_folder(), options.seed, options.scale)
        elif options.out is None:
            raise UserError("where to? Give --out; only --uneven has a place of its own")
        else:
            build.train(options.out, options.seed, options.scale)
        return 0

    def write_prompts(options: argparse.Namespace) -> int:
        from spqr_checks.miniature.prompt_sets import write

        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out)
        return 0

    train.set_defaults(command=train_it)
    prompts.set_defaults(command=write_prompts)
