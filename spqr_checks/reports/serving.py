"""Pages served to browsers on this machine: nothing outside of the folder, and to nobody else."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spqr_checks.errors import UserError

_PAGES = ("report.html", "leaderboard.html", "history.html", "index.html")
_INDEX = ("index.html", "index.htm")
"""What a folder is shown by."""
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?", re.IGNORECASE)
_HISTORY = "allure-history.jsonl"


def pages(folder: Path) -> list[str]:
    """Pages in the folder and in those right below it, as paths within it.

    Raises:
        UserError: there is no folder, or no page in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `spqr run` writes spqr-report")
    found = [
        path.relative_to(folder).as_posix()
        for name in _PAGES
        for path in (*folder.glob(name), *sorted(folder.glob(f"*/{name}")))
        if _inside(path, folder)
    ]
    if not found:
        named = ", ".join(_PAGES)
        raise UserError(f"{folder}: none of {named} is there or one folder below; run `spqr run`")
    return found


def report_of(folder: Path, into: Path) -> Path | None:
    """The report that the `allure` command makes of a folder of its results; None for others.

    What lies in the folder is shown, never run: version 3 takes the configuration, which is a
    program, from where it works if none is given, so it works in ``into`` with one of ours.

    Raises:
        UserError: there is no such command, it fails, or the folder has links that lead out of it.
    """
    if not any(folder.glob("*-result.json")):
        return None
    command = shutil.which("allure")
    if command is None:
        raise UserError(
            f"{folder} holds Allure's results, and no `allure` command is here to show them;\n"
            "install it (npm install -g allure), or give the folder of a finished report"
        )
    if out_of := next((path for path in folder.rglob("*") if not _inside(path, folder)), None):
        raise UserError(f"{out_of}: leads out of the folder; `spqr view` shows what is in it only")
    command, out = os.path.abspath(command), into / "report"
    configured: list[str] = []
    if _is_third(command, into):
        from spqr_checks.reports.allure_files import configure

        configured = ["--config", str(configure(into, folder))]
        if (history := folder.parent / _HISTORY).is_file():
            shutil.copyfile(history, into / _HISTORY)
    given = [command, "generate", str(folder.resolve()), "-o", str(out), *configured]
    done = subprocess.run(given, capture_output=True, text=True, check=False, cwd=into)
    if not (out / "index.html").is_file():
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise UserError(f"`allure generate {folder}` made no report: {said[-1]}")
    return out


def _is_third(command: str, into: Path) -> bool:
    """Version 2 knows no configuration file."""
    asked = [command, "--version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=into)
    return not done.stdout.strip().startswith("2.")


def server(folder: Path, found: Sequence[str], port: int = 0) -> ThreadingHTTPServer:
    """A server of the folder on the loopback address; raises UserError for a port in use."""
    handler = partial(_Handler, directory=str(folder.resolve()), pages=found)
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"--port {port}: {said}; leave it out for any free one") from None


class _Handler(SimpleHTTPRequestHandler):
    """Files of the folder and a list of its pages; no listings, no links that lead out of it."""

    def __init__(self, *given: Any, pages: Sequence[str], **named: Any) -> None:
        self._pages = pages
        super().__init__(*given, **named)

    def send_head(self) -> Any:
        # a page of elsewhere that resolves its own name to this machine asks by that name
        if _HOST.fullmatch(self.headers.get("Host", "")) is None:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        if self.path == "/" and len(self._pages) > 1:
            return self._list()
        if self.path == "/" and self._pages != ["index.html"]:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", quote(f"/{self._pages[0]}"))
            self.end_headers()
            return None
        asked = Path(self.translate_path(self.path))
        # a folder is shown by its index, which may be a link of its own
        if not all(
            _inside(path, Path(self.directory)) for path in (asked, *map(asked.joinpath, _INDEX))
        ):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _list(self) -> None:
        items = "".join(
            f'<li><a href="{quote(page)}">{html.escape(page)}</a></li>' for page in self._pages
        )
        content = f'<!doctype html><html lang="en"><title>SPQR</title><ul>{items}</ul></html>'
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content.encode())

    def list_directory(self, path: str | os.PathLike[str]) -> Any:
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing: who looks at a page needs no log of it."""


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
