"""Texts of others on their way through pytest into JUnit, Allure and terminals.

What a user's test or a library raises may say anything: an exception with a terminal's escapes, a
name that turns the direction of writing. pytest hands such texts on as they are.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from allure_commons import hookimpl, plugin_manager

from spqr_checks.reports.text import lines

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ALLURE = "spqr-escaping"


def escaped(text: str) -> str:
    """The text without colours, which pytest's own comparisons have, and with all else visible."""
    end = "\n" if text.endswith("\n") else ""
    return lines(_COLOUR.sub("", text)) + end


def escape_report(report: pytest.TestReport) -> None:
    """Escapes a test's failure, tracebacks and captured output, where pytest keeps them."""
    report.longrepr = _escape(report.longrepr)
    report.sections = [(escaped(name), escaped(content)) for name, content in report.sections]


def _escape(value: Any) -> Any:
    """Texts in lists, tuples and pytest's own objects, which are changed in place."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_escape, value))
    if type(value).__module__.startswith("_pytest.") and hasattr(value, "__dict__"):
        for name, held in vars(value).items():
            object.__setattr__(value, name, _escape(held))  # some are frozen
    return value


class _Details:
    """Escapes what Allure keeps of exceptions, which it asks themselves, not pytest's reports."""

    @hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
    def report_result(self, result: Any) -> None:
        self._escape(result)

    @hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
    def report_container(self, container: Any) -> None:
        for fixture in (*(container.befores or ()), *(container.afters or ())):
            self._escape(fixture)

    def _escape(self, item: Any) -> None:
        if (said := item.statusDetails) is not None:
            said.message, said.trace = (
                text and escaped(text) for text in (said.message, said.trace)
            )
        for step in item.steps or ():
            self._escape(step)


def escape_allure() -> None:
    """From here to `release_allure` Allure's results of this process are escaped."""
    if not plugin_manager.has_plugin(_ALLURE):
        plugin_manager.register(_Details(), _ALLURE)


def release_allure() -> None:
    """Ends what `escape_allure` began."""
    if plugin_manager.has_plugin(_ALLURE):
        plugin_manager.unregister(name=_ALLURE)
