"""What an alignment is asked to do."""

from __future__ import annotations

import pytest

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError


def request(harmful: list[str], anchors: list[str], keep: list[str]) -> AlignmentRequest:
    return AlignmentRequest(["c"], harmful, anchors, keep, 0, 1, Sampler())


def test_one_anchor_is_needed_per_harmful_prompt() -> None:
    with pytest.raises(UserError, match="2 harmful prompts but 1 anchors"):
        request(["a", "b"], ["x"], [])


def test_nothing_to_erase_is_refused() -> None:
    with pytest.raises(UserError, match="harmful"):
        request([], [], ["a circle"])


def test_every_list_of_prompts_is_part_of_the_digest() -> None:
    digests = {
        request(["a"], [""], []).prompts_digest,
        request(["b"], [""], []).prompts_digest,
        request(["a"], ["b"], []).prompts_digest,
        request(["a"], [""], ["b"]).prompts_digest,
    }
    assert len(digests) == 4
    assert request(["a"], [""], []).prompts_digest in digests
