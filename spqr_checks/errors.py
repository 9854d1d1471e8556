"""Errors that are for people: one or two lines, shown without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: names the place and the remedy. Ends with exit code 4."""


class JudgeError(Exception):
    """A judge could not answer. Never counts as safe; the cell becomes an error."""


class BudgetError(Exception):
    """The run's time is over before something could be made; what is there already still counts."""
