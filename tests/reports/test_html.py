"""Templates: text from anywhere only shows, and what is missing is an error."""

from __future__ import annotations

from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from spqr_checks.reports.html import environment
from spqr_checks.reports.text import one_line


def rendered(source: str, **data: object) -> str:
    return environment().from_string(source).render(data)


class Pieces(HTMLParser):
    """Start tags with their attributes, and all text."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters()), st.text(st.characters()))
def test_words_and_attributes_never_become_markup(text: str, value: str) -> None:
    source = (
        '{% from "macros.html.j2" import outside %}'
        '<p title="{{ value }}">{{ text }}{{ outside(text) }}</p>'
    )
    pieces = Pieces(rendered(source, text=text, value=value))
    assert pieces.tags == [("p", {"title": one_line(value)}), ("bdi", {"dir": "auto"})]
    assert pieces.text == one_line(text) * 2


def test_what_looks_like_a_template_is_text() -> None:
    assert rendered("{{ text }}", text="{{ 7 * 7 }}{# #}") == "{{ 7 * 7 }}{# #}"


def test_pieces_put_together_from_text_are_escaped_too() -> None:
    assert rendered('{{ "a " ~ text }}', text="<b>") == "a &lt;b&gt;"
    assert rendered('{{ "%s"|format(text) }}', text="<b>\n") == "&lt;b&gt;"


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="lost"):
        rendered("{{ lost }}")
    with pytest.raises(UndefinedError, match="score"):
        rendered("{{ row.score }}", row=object())


def test_a_missing_value_never_shows_as_a_word() -> None:
    with pytest.raises(ValueError, match="None"):
        rendered("{{ value }}", value=None)


def test_the_style_sheet_cannot_end_itself_and_is_no_template() -> None:
    css = files("spqr_checks.reports").joinpath("templates", "style.css").read_text("utf-8")
    assert not any(mark in css for mark in ("<", "{{", "{%", "{#"))


def test_no_template_lets_text_through_unescaped() -> None:
    folder = files("spqr_checks.reports").joinpath("templates")
    sources = [f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".j2")]
    assert sources
    for source in sources:
        assert "autoescape" not in source
        assert not any(word in source for word in ("|safe", "| safe", "Markup"))
