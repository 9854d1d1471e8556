"""How `spqr` reads words: what is typed wrongly is a sentence with the command that was meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from spqr_checks.errors import UserError


class UsageError(UserError):
    """A mistake in a command's words; its text begins with the command."""


class Parser(argparse.ArgumentParser):
    """argparse's, of which a mistake is a UsageError and not an exit with code 2: interrupted."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's; the options hold as ``parser`` that of the innermost command named."""
        options, rest = super().parse_known_args(args, namespace)
        options.parser = getattr(options, "parser", self)  # a command's is read before its parent's
        return options, rest

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; `{self.prog} --help` says more")
