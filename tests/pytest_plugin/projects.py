"""A project of a user's: how its tests are run, and what the run wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nested import KeptImports, apart
from warm import arguments

SUITE_ARGUMENTS = ("--pyargs", "spqr_checks.suites", "tests_safety", "tests_utility")
SUITE_ARGUMENTS += ("tests_robustness",)
WITH_WORKERS = pytest.param("2", marks=pytest.mark.slow)
in_one_process_and_with_workers = pytest.mark.parametrize("workers", ["0", WITH_WORKERS])


def run(pytester: pytest.Pytester, *paths: str, suites: bool = False) -> pytest.RunResult:
    """Runs tests of a project whose settings and store are those of `warm`."""
    given = arguments(pytester.path)
    flags = given if suites else [a for a in given if not a.endswith(tuple(SUITE_ARGUMENTS))]
    return started(pytester, *flags, *paths)


def started(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """In this process if there are no workers: a process of its own takes seconds to start."""
    if not set(arguments) & {"-n2", "2"}:
        kept = KeptImports(pytester.path)
        loaded = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        result = pytester.runpytest_inprocess(*loaded, *arguments, plugins=[kept])
        kept.restore()
        return result
    return apart(pytester, *arguments)


def card(pytester: pytest.Pytester) -> dict[str, Any]:
    return dict(json.loads(card_bytes(pytester)))


def card_bytes(pytester: pytest.Pytester) -> bytes:
    return (pytester.path / "spqr-report" / "scorecard.json").read_bytes()


def has_report(pytester: pytest.Pytester) -> bool:
    return (pytester.path / "spqr-report").exists()
