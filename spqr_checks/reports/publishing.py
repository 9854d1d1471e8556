"""Reports and model card put into a folder, or in one commit into a repository of the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from spqr_checks.errors import UserError, refuse_all
from spqr_checks.hub import away
from spqr_checks.reports import PAGE, SCORECARD, ours
from spqr_checks.reports.files import replace
from spqr_checks.reports.json_file import read_scorecard
from spqr_checks.reports.model_card import refuse_numberless, updated
from spqr_checks.reports.run_page import SHARP
from spqr_checks.reports.selection import gate_word
from spqr_checks.reports.text import one_line, score
from spqr_checks.user_files import path_of, refuse_irregular

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
_MOST = 64 * 2**20
"""Bytes of one report: a page has pictures of at most a few."""
_REMEDY = "Move it away or choose another target."


class Target(Protocol):
    """Where files are put."""

    @property
    def said(self) -> str:
        """What people call it, with whatever they should know before they write there."""

    def read(self, name: str) -> bytes | None:
        """A file that is there; None if there is none. Raises UserError."""

    def write(self, files: Mapping[str, bytes], message: str) -> str:
        """Puts files there, over what `read` has found; says where they are. Raises UserError."""


@dataclass(frozen=True)
class Folder:
    """A folder on this machine, which need not be there yet."""

    path: Path

    @property
    def said(self) -> str:
        return f"the folder {self.path}"

    def read(self, name: str) -> bytes | None:
        path = self.path / name
        if not path.exists():
            return None
        refuse_irregular(path, _MOST)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None

    def write(self, files: Mapping[str, bytes], message: str) -> str:
        before = {name: self.read(name) for name in files}
        for name, content in files.items():
            known = before[name]
            replace(self.path / name, content, lambda now, known=known: now == known, _REMEDY)  # type: ignore[misc]
        return str(self.path)


class Repository:
    """A model's repository on the Hub, at what a revision of it is when it is first asked for."""

    def __init__(self, name: str, revision: str) -> None:
        if away():
            raise UserError(f"{name}: the Hub cannot be reached; push when online, or to a folder")
        self._name, self._revision = name, revision
        with _refusals(name):
            info = self._api.model_info(name, revision=revision)
        self._commit = str(info.sha)
        self._there = {sibling.rfilename for sibling in info.siblings or ()}
        seen = "seen by those only whom its owner lets in" if info.private else "seen by everybody"
        self.said = f"the repository {name} ({revision}, at {self._commit[:8]}), {seen}"

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi()

    def read(self, name: str) -> bytes | None:
        if name not in self._there:
            return None
        with _refusals(self._name):
            return Path(
                self._api.hf_hub_download(self._name, name, revision=self._commit)
            ).read_bytes()

    def write(self, files: Mapping[str, bytes], message: str) -> str:
        from huggingface_hub import CommitOperationAdd

        with _refusals(self._name):
            done = self._api.create_commit(
                self._name,
                [CommitOperationAdd(name, content) for name, content in files.items()],
                commit_message=message,
                revision=self._revision,
                parent_commit=self._commit,
            )
        return str(done.commit_url)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What the Hub's client raises, in a sentence."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError:
        raise UserError(
            f"{name}: there is no such repository, or this token may not see it; "
            f"make it (hf repo create {name}), or log in (hf auth login)"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: there is no such branch; write OWNER/NAME@BRANCH") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            said = "this token may not write there; log in with one that may (hf auth login)"
        elif status == 412:
            said = "somebody has changed it meanwhile; push again"
        else:
            said = one_line(str(error).strip().partition("\n")[0])
        raise UserError(f"{name}: {said}") from None
    except (HFValidationError, OSError, ValueError) as error:
        raise UserError(f"{name}: {one_line(str(error))}") from None


@dataclass(frozen=True)
class Push:
    """What would be put where.

    Attributes:
        files: name at the target → content, and what it is to the target: new, changed or as it is.
        message: of a commit.
    """

    target: Target
    files: Mapping[str, tuple[bytes, str]]
    message: str

    def carry_out(self) -> str:
        """Puts there what is not as it is; says where. Raises UserError."""
        differing = {
            n: content for n, (content, state) in self.files.items() if state != "as it is"
        }
        return self.target.write(differing, self.message) if differing else self.target.said


def target_of(text: str) -> Target:
    """A folder, if it is there or begins with ``/``, ``.`` or ``~``, or ``OWNER/NAME[@BRANCH]``.

    Raises:
        UserError: for neither, and a repository that cannot be had.
    """
    path = path_of(text)
    if path.is_dir() or text.startswith(("/", ".", "~")):
        return Folder(path)
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", text, re.ASCII)
    if found is None:
        raise UserError(f"{text!r} is neither OWNER/NAME of the Hub nor a folder; write ./{text}")
    return Repository(found[1], found[2] or "main")


def planned(folder: Path, text: str, inside: str = "spqr") -> Push:
    """What pushing a run's reports comes to; writes nothing.

    Args:
        folder: of the reports; of the files in it those that a run writes are taken.
        text: the target, as of `target_of`.
        inside: the folder at the target; the model card lies above it.

    Raises:
        UserError: the run has no number, a report shows what should not be passed on, something of
            somebody else's would be written over, or the target cannot be had.
    """
    card = read_scorecard(folder / SCORECARD)
    refuse_numberless(card)
    target = target_of(text)
    found: dict[str, bytes] = {}
    problems: list[str] = []
    for name, is_ours in ours().items():
        path = folder / name
        if not path.exists():
            continue
        refuse_irregular(path, _MOST)
        found[f"{inside}/{name}"] = content = path.read_bytes()
        if not is_ours(content):
            problems.append(f"{path} was not written as such a report; move it away")
        there = target.read(f"{inside}/{name}")
        if there is not None and not is_ours(there):
            problems.append(f"{inside}/{name} of {target.said} is somebody else's; move it away")
        if name == PAGE and SHARP in content:
            problems.append(
                f"{path} holds flagged images behind their blur; make it again without "
                f"(spqr report {folder} --out DIR), and push that"
            )
    refuse_all(problems)
    old = target.read(CARD)
    try:
        found[CARD] = updated("" if old is None else old.decode("utf-8"), card).encode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{CARD} of {target.said} is not UTF-8 text") from None
    states = {}
    for name, content in found.items():
        there = old if name == CARD else target.read(name)
        states[name] = "new" if there is None else "as it is" if there == content else "changed"
    message = f"SPQR {score(card.spqr)}, gate {gate_word(card)}"
    return Push(target, {name: (c, states[name]) for name, c in found.items()}, message)
