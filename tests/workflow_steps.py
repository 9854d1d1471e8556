"""Runs the shell steps of workflow files as their hosts do, with stand-ins for hosts' programs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from nested import PLUGINS, environment

ROOT = Path(__file__).parents[1]
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_OURS = f'exec "{sys.executable}" -m spqr_checks.cli "$@"\n'
_PROGRAMS = {
    "spqr": _OURS,
    "python": f'exec "{sys.executable}" "$@"\n',
    "pip": 'printf "%s\\n" "pip $*" >> "$LOG"\n',
    # the real command where it is installed: "--yes allure@VERSION" before its own words
    "npx": 'printf "%s\\n" "npx $*" >> "$LOG"; shift 2\n'
    "if [ -n \"$ALLURE\" ]; then exec \"$ALLURE\" \"$@\"; fi\n"
    'mkdir -p allure-report && cp "$4" allure-report/index.html\n',
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    # the base loader leaves words as they are; YAML 1.1 takes GitHub's `on` for a truth
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))


def shell_steps(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Job and step of everything that runs in a shell, in a workflow or a composite action."""
    jobs = document["jobs"] if "jobs" in document else {"action": document["runs"]}
    for name, job in jobs.items():
        yield from ((name, step) for step in job["steps"] if "run" in step)


@dataclass
class Host:
    """A machine that runs steps in a folder.

    Attributes:
        context: GitHub's expressions and what they stand for; an unknown one is an error.
        variables: environment of every step.
    """

    folder: Path
    bin: Path
    context: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bin.mkdir(exist_ok=True)
        for name, body in _PROGRAMS.items():
            self.program(name, f"#!/bin/sh\n{body}")
        self.log.touch()

    @property
    def log(self) -> Path:
        return self.bin / "log"

    def program(self, name: str, text: str) -> None:
        """Puts a program before all others."""
        (self.bin / name).write_text(text, encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def filled(self, text: str) -> str:
        """A text with its expressions filled in."""
        return _EXPRESSION.sub(lambda found: self.context[found[1]], text)

    def step(self, document: Mapping[str, Any], job: str, step: Mapping[str, Any]) -> Ran:
        """Runs one step with the environments of workflow, job and step."""
        whole = document.get("jobs", {}).get(job, {})
        levels = (document.get("env", {}), whole.get("env", {}), step.get("env", {}))
        env = {k: self.filled(v) for level in levels for k, v in level.items()}
        assert "${{" not in step["run"], "what others say would be a part of the script"
        return self.shell(step["run"], **env)

    def shell(self, script: str, **env: str) -> Ran:
        """Runs a script as GitHub and GitLab do."""
        files = {name: self.bin / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        known = environment() | {
            "PYTEST_PLUGINS": f"{PLUGINS['PYTEST_PLUGINS']},allure_pytest.plugin",
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "LOG": str(self.log),
            "ALLURE": shutil.which("allure") or "",
            "RUNNER_TEMP": str(self.bin),
            **{name: str(path) for name, path in files.items()},
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=known | self.variables | env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        outputs = dict(
            line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().split("\n")[:-1]
        )
        return Ran(
            done.returncode,
            done.stdout + done.stderr,
            outputs,
            files["GITHUB_STEP_SUMMARY"].read_text(),
        )


@dataclass(frozen=True)
class Ran:
    """What became of a step."""

    code: int
    said: str
    outputs: dict[str, str]
    summary: str
