"""How many steps a fine-tuning takes, and on which part of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive images ``start`` to ``stop`` and the steps taken on them alone.

    ``checkpoint`` names the folder that is written after the block, if there is a curriculum.
    """

    start: int
    stop: int
    steps: int
    checkpoint: str | None = None


def blocks(profile: Profile, n: int) -> list[Block]:
    """The plan of a fine-tuning on ``n`` images.

    Without a curriculum one block of ``profile.steps``, or else of as many steps as ``epochs``
    passes take. With one, the same number of passes over each block in turn; the last block ends
    with the data where these are fewer, and what lies beyond the last bound is not used. Raises
    UserError for bounds that do not rise, blocks without images or without steps, no data.
    """
    if n < 1:
        raise UserError("the fine-tuning data hold no images; give a data set with some")
    bounds = profile.curriculum or (n,)
    if bounds[0] < 1 or any(a >= b for a, b in pairwise(bounds)):
        raise UserError(f"curriculum {bounds}: the bounds must rise, for example 1000, 3000, 5000")
    starts = (0, *bounds[:-1])
    if n <= starts[-1]:
        raise UserError(
            f"curriculum {bounds} needs more than {starts[-1]} images, the data set has {n}; "
            "lower the bounds or give more data"
        )
    stops = (*bounds[:-1], min(bounds[-1], n))
    planned = [
        Block(start, stop, steps, f"curriculum-{bound}" if profile.curriculum else None)
        for start, stop, bound, steps in zip(
            starts, stops, bounds, _steps(profile, starts, stops), strict=True
        )
    ]
    if any(block.steps < 1 for block in planned):
        raise UserError(
            f"{profile.steps} steps are too few for the {len(planned)} blocks of the curriculum "
            f"{bounds}; give more steps"
        )
    return planned


def _steps(profile: Profile, starts: tuple[int, ...], stops: tuple[int, ...]) -> list[int]:
    if profile.steps is None:
        return [
            math.ceil(profile.epochs * (stop - start) / profile.images_per_step)
            for start, stop in zip(starts, stops, strict=True)
        ]
    # in proportion to the blocks, so that each image is seen as often in any of them
    ends = [round(profile.steps * stop / stops[-1]) for stop in stops]
    return [end - begin for begin, end in zip((0, *ends[:-1]), ends, strict=True)]
