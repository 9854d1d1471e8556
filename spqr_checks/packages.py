"""Packages that only some choices need: what lacks is said in one way, with one remedy. Light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from spqr_checks.errors import UserError
from spqr_checks.known_good import installed

OURS = "spqr-checks"
_EXTRAS = {"protobuf": "sentencepiece", "sentencepiece": "sentencepiece", "torchvision": "vlm"}
"""The extra that brings what libraries ask for by themselves."""
_ASKED = re.compile(
    r"requires the ([\w.-]+) library|pip install (?:-\S+ )*([\w.-]+)|No module named '(\w+)"
    r"|Missing optional dependencies: ([\w-]+)|\b(protobuf|sentencepiece|tiktoken)\b",
    re.IGNORECASE,
)


def how_to_install(*packages: str, extra: str | None = None) -> str:
    """The command that brings the packages: the extra that has them, if there is one."""
    extras = {extra} if extra else {_EXTRAS.get(package, "") for package in packages}
    if len(extras) == 1 and (one := extras.pop()):
        return f"pip install '{OURS}[{one}]'"
    return f"pip install {' '.join(packages)}"


def missing(what: str, *packages: str, extra: str | None = None) -> UserError:
    """The error of a choice whose packages are not installed."""
    are = "is" if len(packages) == 1 else "are"
    return UserError(
        f"{what} needs {', '.join(packages)}, which {are} not installed: "
        f"{how_to_install(*packages, extra=extra)}"
    )


@contextmanager
def importing(what: str, package: str, extra: str | None = None) -> Iterator[None]:
    """Around every import of a package that need not be there.

    Args:
        what: what needs it, as the user names it.
        extra: the extra in pyproject that has it.

    Raises:
        UserError: where it, or what it imports, is not installed; where it is broken.
    """
    try:
        yield
    except ImportError as error:
        # such as cv2 for nudenet: what lacks is named, and the same extra brings it
        absent = (error.name or "").partition(".")[0] or package
        if isinstance(error, ModuleNotFoundError) and find_spec(absent) is None:
            raise missing(what, absent, extra=extra) from None
        raise UserError(
            f"{what}: {package} cannot be imported ({error}): "
            f"{how_to_install(package, extra=extra)} --force-reinstall"
        ) from error


def remedy(error: BaseException | None) -> str:
    """What a library's error asks for that is not installed, and the command; else ``""``.

    Libraries say it in an ImportError, or in the middle of a page of advice; what they ask for and
    is there is not the cause.
    """
    asked: dict[str, None] = {}
    while error is not None:
        for groups in _ASKED.findall(str(error)):
            name = next(filter(None, groups)).lower().strip(".-")
            # a SentencePiece file is tried as tiktoken's where its own reader is not installed
            names = ("sentencepiece", "protobuf") if name == "tiktoken" else (name,)
            asked |= dict.fromkeys(filter(_absent, names))
        error = error.__cause__ or error.__context__
    if not asked:
        return ""
    are = "is" if len(asked) == 1 else "are"
    return f"it needs {', '.join(asked)}, which {are} not installed: {how_to_install(*asked)}"


def _absent(name: str) -> bool:
    return installed(name) is None and not (name.isidentifier() and find_spec(name))
