"""Runs a page's commands one after the other, in one process, on made-up artefacts.

As a program it reads requests as lines of JSON, each a page's commands and where to run them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from forked import LIBRARIES
from nested import PLUGINS, environment
from shown_commands import ROOT, Command, blocks, started
from warm import BASE_SETTINGS, fill

from spqr_checks.cli.estimate import _parser as estimating_parser
from spqr_checks.cli.leaderboard import _parser as leaderboard_parser
from spqr_checks.cli.main import main
from spqr_checks.leaderboard.candidates import parse_candidates
from spqr_checks.pytest_plugin.options import given

_MORE_PLUGINS = "allure_pytest.plugin,syrupy"
"""Of these pages' commands."""
_RESULTS = "carried-out.json"
OF_A_LOOP = 3
"""So many commands of a loop, and candidates of a list: the others differ in a word from these."""
_BEFORE = {
    "baseline.md": {"2026-11": "released/2026-11"},
    "leaderboard.md": {"2026-11": "a", "2026-12": "b"},
}
"""What a page takes for done: candidates, and the reports of their runs."""
_COPIED = {"snapshots.md": "tests/test_scorecard.py"}
"""Where a reader copies a page's first code to."""
_OWN_PROMPTS = {"concepts": None, "domains": "plain", "images": 72}
"""They have other concepts than the miniature's; a verdict on one needs more images."""
_OWN_MODEL = {
    "preset": "none",
    "judge": "classifier=miniature:classifier",
    "clip": "miniature:clip",
    "reference": "miniature:reference",
    "prompts": "miniature",
}
"""What a run of a model of one's own must be told."""


@dataclass(frozen=True)
class Step:
    """A command, and the words that start it here."""

    command: Command
    words: tuple[str, ...]


def prepared(commands: Iterable[Command], project: Path) -> Iterator[Step]:
    """Makes up what each command would make, and says how it is started."""
    commands = list(commands)
    page = commands[0].page
    if page in _COPIED:
        (project / _COPIED[page]).parent.mkdir()
        code = blocks(ROOT / "docs" / page, "python")[0]
        (project / _COPIED[page]).write_text(code, encoding="utf-8")
    for candidate, report in _BEFORE.get(page, {}).items():
        line = f"spqr run --spqr-candidate ./candidates/{candidate} --spqr-report {report}"
        yield _step(Command(page, tuple(line.split())), tuple(line.split()), project)
    for command in commands:
        if command.words[0] == "cat" or command.place >= OF_A_LOOP:
            continue
        if command.words[0] == "make":
            dry = ["make", "--dry-run", *command.words[1:]]
            done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True)
            (line,) = re.findall(r"^\S*bin/(spqr .*)$", done.stdout, re.M)
            (words,) = started(line)
        else:
            words = command.words
        yield _step(command, tuple(map(_meant, pairwise(("", *words)))), project)


def _meant(words: tuple[str, str]) -> str:
    """A word, by what stands before it: one worker does, and a method for the reader's choice."""
    before, word = words
    if before == "-n":
        return "1"
    if before == "--candidates":
        return ",".join(word.split(",")[:OF_A_LOOP])
    return word.replace("method:NAME", "method:sc-dpo")


def _step(command: Command, words: tuple[str, ...], project: Path) -> Step:
    # a judge that takes concepts of any name
    settings = BASE_SETTINGS | {"alignment_languages": "en", "judge": "clip=miniature:clip"}
    settings |= _OWN_PROMPTS if "--spqr-prompts" in words else {}
    settings |= _OWN_MODEL if "--spqr-base" in words else {}
    (project / "pyproject.toml").write_text(_toml(settings), encoding="utf-8")
    if words[:2] == ("spqr", "init"):  # is for a project that has none yet
        (project / "pyproject.toml").unlink()
    if words[:2] == ("spqr", "run"):
        options, _ = estimating_parser().parse_known_args(words[2:])
        fill(project, **(settings | given(vars(options).get)))
    elif words[:2] == ("spqr", "leaderboard"):
        options = leaderboard_parser().parse_args(words[2:])
        for candidate in parse_candidates(options.candidates) if options.candidates else ():
            fill(project, **(settings | given(vars(options).get) | {"candidate": candidate.name}))
    return Step(command, words)


def _toml(settings: Mapping[str, Any]) -> str:
    return "[tool.spqr]\n" + "".join(
        f"{k} = {json.dumps(v)}\n" for k, v in settings.items() if v is not None
    )


def started_as_typed(words: Sequence[str]) -> int:
    """Runs a command in this process: most of a small one is importing libraries."""
    program, *rest = words
    if program == "spqr":
        return main(rest)
    if program == "pytest":
        return int(pytest.main(rest))
    script, *rest = rest
    sys.argv = [script, *(w for g in rest for w in (sorted(glob(g)) if "*" in g else [g]))]
    runpy.run_path(str(ROOT / script), run_name="__main__")
    return 0


class Reader:
    """Carries out a page's commands, each page in a process forked from one with the libraries."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        plugins = {"PYTEST_PLUGINS": f"{PLUGINS['PYTEST_PLUGINS']},{_MORE_PLUGINS}"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment() | plugins | variables,
        )

    def carried_out(
        self, commands: Sequence[Command], project: Path
    ) -> list[tuple[Command, int, str]]:
        """Each command that was run, its exit code and output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"project": str(project), "commands": [asdict(command) for command in commands]}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        assert answer == "0", f"{commands[0].page}: {answer or 'the process is no more'}"
        results = json.loads((project / _RESULTS).read_text("utf-8"))
        return [(Command(**of), code, printed) for of, code, printed in results]

    def close(self) -> None:
        self._process.communicate()


def _carry_out(commands: list[Command], project: Path) -> None:
    os.chdir(project)
    results = []
    for step in prepared(commands, project):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = started_as_typed(step.words)
        results.append((asdict(step.command), int(code), printed.getvalue()))
    (project / _RESULTS).write_text(json.dumps(results), "utf-8")


def _serve() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if (child := os.fork()) == 0:
            os.dup2(2, 1)  # the answer is said by the server alone
            signal.alarm(1200)  # and there is one
            try:
                _carry_out([Command(**one) for one in asked["commands"]], Path(asked["project"]))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
