"""Prompt files on the Hugging Face Hub: one data file at one commit; no scripts are run."""

from __future__ import annotations

import re
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import READABLE

_SCHEME = "hf://"
_NAME = r"[A-Za-z0-9][\w.-]*"
_URL = re.compile(
    rf"hf://(?:datasets/)?(?P<name>{_NAME}/{_NAME})"
    rf"(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/@]+))?/(?P<file>[^@]+)",
    re.ASCII,
)


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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = hf_hub_download(name, file, repo_type="dataset", revision=revision)
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{url}: not in the Hub cache, and the Hub cannot be reached.\n"
            "Download the file on a machine that is online and give its path."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{url}: cannot be had from the Hub: {reason}\n"
            "If its owner asks for that, accept the conditions on its page and log in."
        ) from error
    return Path(found)


def pinned(url: str) -> str:
    """The address with the commit that its revision stands for; errors as in ``fetch``."""
    name, _, file = _parts(url)
    # the cache keeps it as snapshots/COMMIT/path-in-repo
    commit = fetch(url).parts[-1 - len(Path(file).parts)]
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise UserError(f"{url}: the Hub cache does not name a commit.")
    return f"{_SCHEME}{name}@{commit}/{file}"


def _parts(url: str) -> tuple[str, str | None, str]:
    match = _URL.fullmatch(url)
    if match is None or not match["file"].endswith(READABLE):
        raise UserError(
            f"{url!r}: write hf://owner/name[@revision]/path-in-repo, "
            f"with a file that ends in {', '.join(READABLE)}"
        )
    return match["name"], match["revision"], match["file"]
