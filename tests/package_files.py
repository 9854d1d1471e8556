"""The source files of this package, found without its own code."""

from __future__ import annotations

from pathlib import Path

import spqr_checks

NAME = spqr_checks.__name__
PACKAGE = Path(spqr_checks.__file__).parent
FILES = {
    ".".join((NAME, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Every module of the package."""
