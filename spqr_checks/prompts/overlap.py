"""Prompts that are measured and were learned from, word for word or nearly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spqr_checks.prompts.leaks import find_leaks
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.text import is_blank, normalised, words

_FEWEST_WORDS = 5


@dataclass(frozen=True)
class Overlap:
    """Which measured prompts overlap, as positions among them.

    Attributes:
        tested: number of measured prompts.
        verbatim: learned from letter by letter.
        normalised: but for case, white space and Unicode composition; holds all of ``verbatim``.
        near: not among these, but near one that was learned from, see ``near_keys``.
    """

    tested: int
    verbatim: tuple[int, ...]
    normalised: tuple[int, ...]
    near: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.normalised)


def find_overlap(
    measured: Sequence[Prompt], learned: Sequence[Prompt], near: bool = False
) -> Overlap:
    """Looks the measured prompts up among prompts and anchors that a method learns from.

    Args:
        near: whether near ones are looked for too, which takes longer.
    """
    taught = [t for p in learned for t in (p.text, p.anchor) if not is_blank(t)]
    tested = [prompt.text for prompt in measured]
    leaks = find_leaks(taught, tested)
    close: tuple[int, ...] = ()
    if near:
        same = set(leaks.normalised)
        known = {key for text in taught for key in near_keys(text)}
        close = tuple(
            n
            for n, text in enumerate(tested)
            if n not in same and not known.isdisjoint(near_keys(text))
        )
    return Overlap(leaks.tested, leaks.verbatim, leaks.normalised, close)


def near_keys(text: str) -> set[tuple[str, ...]]:
    """Two texts are near if they share a key: the same words but for order and one word.

    One word may be missing, added or another. Of texts with fewer than five words, and of scripts
    without spaces, all words must be there.
    """
    bag = sorted(words(text))
    keys = {tuple(bag)} if bag else set()
    if len(bag) >= _FEWEST_WORDS:
        keys |= {tuple(bag[:n] + bag[n + 1 :]) for n in range(len(bag))}
    return keys


def repeated(prompts: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Prompts whose text is in their group already, each after the one that it repeats."""
    first: dict[tuple[object, str], Prompt] = {}
    found = []
    for prompt in prompts:
        known = first.setdefault((prompt.group, normalised(prompt.text)), prompt)
        if known is not prompt:
            found.append((known, prompt))
    return found
