"""What the pytest runs that tests start have in common."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import forked
import pytest

PLUGINS = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "xdist.plugin,spqr_checks.pytest_plugin.plugin",
}
"""Of the installed plugins ours and xdist: the others take most of the time to start a process."""


def environment() -> dict[str, str]:
    """This process's, with `PLUGINS` and without the options of the outer run."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | PLUGINS


def apart(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A project's tests, run in a process of its own."""
    own = f"--basetemp={pytester.path / 'basetemp'}"
    command = [sys.executable, "-m", "pytest", own, *arguments]
    begun = time.perf_counter()
    done = forked.run(command, pytester.path, os.environ, timeout=120)
    said = done.stdout.splitlines(), done.stderr.splitlines()
    return pytest.RunResult(done.returncode, *said, time.perf_counter() - begun)


class KeptImports:
    """A plugin for inner runs in this process, whose imports pytester forgets.

    Libraries with compiled parts cannot be imported twice.
    """

    _modules: ClassVar[dict[str, ModuleType]] = {}

    def __init__(self, project: Path) -> None:
        self._project = project

    def pytest_unconfigure(self) -> None:
        for name, module in sys.modules.items():
            file = getattr(module, "__file__", None)
            if file is None or not Path(file).is_relative_to(self._project):
                self._modules[name] = module

    @classmethod
    def restore(cls) -> None:
        """Call it after the run, and after the test: pytester forgets at both ends."""
        sys.modules.update({n: m for n, m in cls._modules.items() if n not in sys.modules})
