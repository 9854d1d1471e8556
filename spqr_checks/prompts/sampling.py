"""A part of a group of prompts, chosen by a seed and stable when the files change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from spqr_checks.prompts.prompt import Prompt


def sample(prompts: Sequence[Prompt], n: int, seed: int) -> tuple[Prompt, ...]:
    """At most ``n`` of the prompts, in their own order.

    Those with the smallest SHA-256 of seed and text are taken. So a choice does not depend on the
    order of the file, more prompts than before include those of before, and a row that is added
    or removed changes at most one of the chosen.
    """
    if len(prompts) <= n:
        return tuple(prompts)
    ranked = sorted(range(len(prompts)), key=lambda i: (_rank(prompts[i].text, seed), i))
    return tuple(prompts[i] for i in sorted(ranked[:n]))


def _rank(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode()).digest()
