"""Pages as a browser would see them, and texts that must not do anything there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

from spqr_checks.scoring.scorecard import Scorecard

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></textarea><svg onload=alert(1)>",
    "\u202egnp.exe\u202c مثلث أحمر",
    "a\x00b\x1b[2J\ud800",
    "&lt;b&gt; &amp; <!-- ]]>",
    "{{ 7 * 7 }}{% raw %}{# board.rows #}",
    "\"quoted\" and 'quoted' `quoted` {{ cycler.__init__.__globals__ }}",
]
VOID = {"img", "input", "meta"}


@dataclass
class Node:
    """An element as a browser would see it."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Node] = field(default_factory=list)
    text: str = ""

    def all(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.all()

    def named(self, tag: str, kind: str = "") -> list[Node]:
        return [
            n
            for n in self.all()
            if n.tag == tag and (not kind or kind in (n.attributes.get("class") or "").split())
        ]

    def words(self) -> str:
        return self.text + "".join(child.words() for child in self.children)


class Tree(HTMLParser):
    """Refuses what is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert [n.tag for n in self._open] == [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        assert len(node.attributes) == len(attrs), attrs
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        # in order with the elements around it
        self._open[-1].children.append(Node("#text", {}, text=data))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def shape(tree: Node) -> list[tuple[str, tuple[str, ...]]]:
    return [(n.tag, tuple(sorted(n.attributes))) for n in tree.all() if n.tag != "#text"]


def spoiled(scorecard: Scorecard, text: str) -> Scorecard:
    """A scorecard with a hostile text wherever text from outside can stand."""
    cells = tuple(
        replace(
            r,
            reason=text,
            cell=replace(r.cell, category=text if r.cell.category != "all" else "all"),
            images=tuple(replace(i, prompt=f"{text} {i.prompt}") for i in r.images),
        )
        for r in scorecard.cells
    )
    return replace(
        scorecard,
        cells=cells,
        gate=replace(scorecard.gate, passed=False, reasons=(text,)),
        base={"name": text},
        judges=[{"judge": text}],
        candidate={**scorecard.candidate, "name": text},
        settings={**scorecard.settings, "reference": text, "candidate": text},
    )
