"""The commands that README and docs show, as a shell would start them."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = ("cat", "make", "pip", "pre-commit", "pytest", "python", "spqr")
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_END, _BETWEEN = "\x1e", "\x1f"
# each program says its words instead of running; nothing else can be started
_SHELL = "".join(
    f"""
    {name}() {{
        printf '%s' {name}; [ $# = 0 ] || printf '{_BETWEEN}%s' "$@"; printf '{_END}'
    }}"""
    for name in PROGRAMS
)


@dataclass(frozen=True)
class Command:
    """One program started with its words, and what the page shows below it.

    Attributes:
        place: among the commands that a loop starts.
    """

    page: str
    words: tuple[str, ...]
    output: str = ""
    place: int = 0

    @property
    def line(self) -> str:
        return " ".join(self.words)


@cache
def shown() -> tuple[Command, ...]:
    """Every command of every console block; loops give each of their commands."""
    return tuple(dict.fromkeys(c for page in PAGES for c in _of_page(page)))


def _of_page(page: Path) -> Iterator[Command]:
    for block in blocks(page, "console"):
        for text, output in typed(block):
            for place, words in enumerate(started(text)):
                yield Command(page.name, words, output, place)


def blocks(page: Path, *languages: str) -> list[str]:
    """The page's fenced blocks in these languages; an empty string stands for none."""
    fenced = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(block) for _, language, block in fenced if language in languages]


def typed(block: str) -> Iterator[tuple[str, str]]:
    """What stands after each prompt, with continued lines and loops, and the lines below."""
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        lines = part.split("\n")
        n = 1
        while lines[n - 1].endswith("\\") or _loops("\n".join(lines[:n])):
            n += 1
        yield "\n".join(lines[:n]), "\n".join(lines[n:])


def _loops(text: str) -> bool:
    return len(re.findall(r"\bdo$|\bdo ", text, re.M)) > len(re.findall(r"\bdone\b", text))


def started(text: str) -> list[tuple[str, ...]]:
    """The commands that bash starts for a text; an omission (…) is left out of their words."""
    # no PATH: a page that shows another program fails here
    script = f'set -eu\nPATH=/nowhere\nseq() {{ command -p seq "$@"; }}\n{_SHELL}\n{text}\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    every = done.stdout.removesuffix(_END).split(_END)
    return [tuple(word for word in one.split(_BETWEEN) if word != "…") for one in every]
