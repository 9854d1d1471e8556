"""Pages from the package's templates: what is not markup is escaped, and stays on one line."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

from spqr_checks.reports.text import (
    NOTHING,
    VERDICTS,
    figure,
    one_line,
    plural,
    score,
    shorten,
    span,
)

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **data: object) -> str:
    """A whole page.

    Args:
        template: name of a file in ``templates``.
        data: what the template names; a name that it has and this lacks is an error.

    Raises:
        jinja2.UndefinedError: the template uses something that is not there.
        ValueError: a value is None where text should show.
    """
    return environment().get_template(template).render(data)


def script(name: str) -> str:
    """What a page's policy says of a script among the templates: its digest, and so it alone."""
    source = environment().get_template(name).render()
    return f"sha256-{b64encode(sha256(source.encode()).digest()).decode()}"


def is_page(mark: str, content: bytes) -> bool:
    """Whether these are the bytes of a page with this mark."""
    return f'content="{mark}"'.encode() in content[:1000]


@cache
def environment() -> Environment:
    """Where templates are read; jinja2 is imported only where a page is written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("spqr_checks.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {f.__name__: f for f in (figure, plural, score, shorten, span)}
    made.globals |= {"NOTHING": NOTHING, "VERDICTS": VERDICTS}
    return made


def _shown(value: object) -> object:
    """What an expression of a template shows: text from anywhere as one harmless line."""
    if value is None:
        raise ValueError("a page has no words for None")
    # what the templates' own macros made is markup already
    return one_line(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
