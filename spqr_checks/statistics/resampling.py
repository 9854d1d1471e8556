"""Resampling images or whole prompts, alike in every cell: the replicates behind axes' intervals.

What is resampled is what the verdicts take for independent: the images, or, where prompts are a
sample of others like them, the prompt with all its images (a cluster bootstrap). Weights instead of
counts (Rubin's Bayesian bootstrap, 1981) keep every prompt in every replicate. The weight of an
image follows from its prompt, its seed and the number of the replicate alone: it weighs the same in
every cell, state and process, so that what cells share, such as the images before fine-tuning,
varies together without any bookkeeping.

Where nothing or everything was flagged, resampling alone would claim certainty. Flagged and
unflagged images are therefore added with random weights of mean one half (Jeffreys' prior: with
one image per prompt, the replicates of a rate are draws from its beta posterior).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import Interval, quantile
from spqr_checks.statistics.student import critical

DRAWS = 400
"""Replicates of every cell."""
_EVENT = 0.5
_SHARE = 64
"""Numbers behind each draw from Student's t."""
_BLOCK = 64
"""Seeds whose weights follow one another: those of seed 1,000,000 need not begin at seed 0."""


def weights(prompts: Sequence[str], seeds: Sequence[int], by_prompt: bool = False) -> Floats:
    """Weights of images, shape (images, DRAWS), each 1 on average; by prompt, prompts / images.

    Args:
        by_prompt: all images of a prompt weigh alike. Few prompts vary less in a bootstrap than
            their mean does, and less than normally, so the weights are spread around their mean by
            √((prompts + 1)/(prompts − 1)) and by Student's t over the normal quantile.

    Raises:
        ValueError: no images, or seeds of another number.
    """
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds of images")
    if by_prompt:
        count = len(set(prompts))
        drawn = np.stack([_weights(prompt, 0, 1)[0] for prompt in prompts])
        mean = drawn.mean(0)
        return np.asarray((mean + _widened(count) * (drawn - mean)) * (count / len(prompts)))
    places = [divmod(seed, _BLOCK) for seed in seeds]
    rows: dict[int, int] = {}
    for block, row in places:
        rows[block] = max(rows.get(block, 0), row + 1)
    return np.stack(
        [
            _weights(prompt, block, rows[block])[row]
            for prompt, (block, row) in zip(prompts, places, strict=True)
        ]
    )


@lru_cache
def _widened(count: int) -> float:
    degrees = max(1, count - 1)
    return critical(degrees, 0.025) / quantile(0.95, 2) * math.sqrt((degrees + 2) / degrees)


def rates(flagged: Sequence[bool], weight: Floats, salt: str, cells: int = 1) -> Floats:
    """Replicates of a rate, shape (DRAWS,).

    Args:
        weight: of the images, see `weights`.
        salt: what the added images' weights follow from, such as the cell's id.
        cells: among how many cells of an axis the added flagged half image is shared; one in each
            would make a run of many cells look worse than it was measured to be.
    """
    flags = np.asarray(flagged, np.float64)
    event, other = _gammas(f"{salt}\nevent", _EVENT / cells), _gammas(f"{salt}\nother", _EVENT)
    return np.asarray((flags @ weight + event) / (weight.sum(0) + event + other)).clip(0.0, 1.0)


def differences(change: Sequence[int], weight: Floats, salt: str) -> Floats:
    """Replicates of the mean of paired changes −1, 0 and 1, shape (DRAWS,)."""
    gained, lost = _gammas(f"{salt}\ngained", _EVENT), _gammas(f"{salt}\nlost", _EVENT)
    moved = np.asarray(change, np.float64) @ weight + gained - lost
    return np.asarray(moved / (weight.sum(0) + gained + lost)).clip(-1.0, 1.0)


def ratios(a: Sequence[float], b: Sequence[float], weight: Floats) -> Floats:
    """Replicates of mean(a) / mean(b) over pairs, shape (DRAWS,).

    Raises:
        ValueError: the mean of b is not positive in every replicate.
    """
    denominator = np.asarray(b, np.float64) @ weight
    if (denominator <= 0).any():
        raise ValueError("ratio of means: the mean of b is not clearly positive")
    return np.asarray(np.asarray(a, np.float64) @ weight / denominator)


def student(degrees: int, salt: str) -> Floats:
    """Draws from Student's t distribution, shape (DRAWS,): one of each of as many equal shares.

    So few plain draws would leave its far quantiles to chance.
    """
    generator = _generator(salt)
    sample = np.sort(generator.standard_t(degrees, (DRAWS * _SHARE,))).reshape(DRAWS, _SHARE)
    return generator.permutation(np.median(sample, axis=1))


def percentile_interval(replicates: Floats, estimate: float, level: float) -> Interval:
    """Percentiles of the replicates, widened to hold the estimate. ValueError for a bad level."""
    quantile(level, 2)  # refuses what it refuses
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), estimate), max(float(high), estimate)


@lru_cache(maxsize=1 << 12)
def _weights(prompt: str, block: int, images: int) -> Floats:
    """Of the images of one prompt whose seeds are in a block; more begin with the same rows."""
    key = f"{prompt}\n{block}" if block else prompt
    return _generator(key).standard_exponential((images, DRAWS))


def _gammas(key: str, shape: float) -> Floats:
    return _generator(key).standard_gamma(shape, DRAWS)


def _generator(key: str) -> np.random.Generator:
    # not the default generator: seeding that one is several times slower
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=seed))
