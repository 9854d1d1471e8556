"""HTML from small pieces: what is not `Html` yet can only get in by being escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import NewType

from spqr_checks.reports.text import one_line

Html = NewType("Html", str)
"""Text that is markup. Only this file makes it out of other text."""

_VOID = frozenset({"img", "input", "meta"})


def words(text: str) -> Html:
    """Text that shows as it is, on one line, control characters as visible escapes."""
    return Html(html.escape(one_line(text)))


def outside(text: str) -> Html:
    """Text from outside that may be in any script, kept apart from the direction around it."""
    return element("bdi", words(text), dir="auto")


def element(tag: str, *children: Html, **attributes: str | None) -> Html:
    """One element with its children.

    Args:
        attributes: values are escaped, None leaves the attribute out. A trailing underscore is
            dropped (``class_``) and the others become hyphens (``aria_label``).
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{''.join(children)}</{tag}>")


def together(parts: Iterable[Html]) -> Html:
    """The parts one after the other, each on a line of its own."""
    return Html("\n".join(part for part in parts if part))


def style_sheet(css: str) -> Html:
    """A style element; the text must come from this package."""
    if "<" in css:
        raise ValueError("a style sheet that could end its own element")
    return Html(f"<style>\n{css}</style>")


def document(language: str, head: Html, body: Html) -> Html:
    """A whole page."""
    inner = together([element("head", Html(f"\n{head}\n")), element("body", Html(f"\n{body}\n"))])
    return Html(f'<!doctype html>\n<html lang="{_value(language)}">\n{inner}\n</html>\n')


def _value(value: str) -> str:
    # pictures are long, plain and need not be looked at letter by letter
    plain = value.isascii() and value.isprintable()
    return html.escape(value if plain else one_line(value))
