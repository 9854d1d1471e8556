"""Data sets on the Hugging Face Hub: a file or a folder at one commit; no scripts are run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.hub import away
from spqr_checks.prompts.tables import READABLE

_SCHEME = "hf://"
_NAME = r"[A-Za-z0-9][\w.-]*"
_SET = (
    rf"hf://(?:datasets/)?(?P<name>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/@]+))?"
)
_URL = re.compile(rf"{_SET}/(?P<file>[^@]+)", re.ASCII)
_FOLDER = re.compile(rf"{_SET}(?:/(?P<inside>[^@]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_url(location: str) -> bool:
    """Whether a location is meant to be on the Hub."""
    return location.startswith(_SCHEME)


def fetch(url: str) -> Path:
    """The file of ``hf://owner/name[@revision]/path-in-repo``, from the cache or downloaded.

    Raises:
        UserError: for an address of another form, a file that is not there, conditions that were
            not accepted, or a Hub that cannot be reached.
    """
    name, revision, file = _parts(url)
    from huggingface_hub import hf_hub_download

    with _refusals(url):
        found = hf_hub_download(
            name, file, repo_type="dataset", revision=revision, local_files_only=away()
        )
    return Path(found)


def fetch_folder(url: str, patterns: Sequence[str]) -> Path:
    """The folder of ``hf://owner/name[@revision][/folder]``, with the files of these patterns.

    Raises:
        UserError: as `fetch`.
    """
    return _snapshot(url, patterns)[0]


def _snapshot(url: str, patterns: Sequence[str]) -> tuple[Path, str]:
    """The folder, and the address with its commit."""
    match = _FOLDER.fullmatch(url)
    inside = match and (match["inside"] or "").strip("/")
    if match is None or {"..", "."} & {*str(inside).split("/")}:
        raise UserError(f"{url!r}: write hf://owner/name[@revision][/folder]")
    from huggingface_hub import snapshot_download

    with _quiet(), _refusals(url):
        folder = Path(
            snapshot_download(
                match["name"],
                repo_type="dataset",
                revision=match["revision"],
                allow_patterns=[f"{inside}/{p}" if inside else p for p in patterns],
                local_files_only=away(),
            )
        )
    if not _COMMIT.fullmatch(folder.name):
        raise UserError(f"{url}: the Hub cache does not name a commit.")
    place = f"{_SCHEME}{match['name']}@{folder.name}"
    return (folder / inside, f"{place}/{inside}") if inside else (folder, place)


@contextmanager
def _quiet() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not quiet:
            enable_progress_bars()


@contextmanager
def _refusals(url: str) -> Iterator[None]:
    """What the Hub's client raises, in a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{url}: not in the Hub cache, and the Hub cannot be reached.\n"
            "Download it on a machine that is online and give its path."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{url}: cannot be had from the Hub: {reason}\n"
            "If its owner asks for that, accept the conditions on its page and log in."
        ) from error


def pinned(url: str) -> str:
    """The address with the commit that its revision stands for; errors as in ``fetch``."""
    name, _, file = _parts(url)
    # the cache keeps it as snapshots/COMMIT/path-in-repo
    commit = fetch(url).parts[-1 - len(Path(file).parts)]
    if not _COMMIT.fullmatch(commit):
        raise UserError(f"{url}: the Hub cache does not name a commit.")
    return f"{_SCHEME}{name}@{commit}/{file}"


def pinned_folder(url: str) -> str:
    """The same for a folder's address."""
    return _snapshot(url, ["README.md"])[1]


def _parts(url: str) -> tuple[str, str | None, str]:
    match = _URL.fullmatch(url)
    if match is None or not match["file"].endswith(READABLE):
        raise UserError(
            f"{url!r}: write hf://owner/name[@revision]/path-in-repo, "
            f"with a file that ends in {', '.join(READABLE)}"
        )
    return match["name"], match["revision"], match["file"]
