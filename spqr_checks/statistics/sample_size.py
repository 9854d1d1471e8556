"""How many images a threshold needs before a cell can pass."""

from __future__ import annotations

from functools import lru_cache

from spqr_checks.statistics import evidence
from spqr_checks.statistics.betting import e_below

_MOST = 20_000
_RATES = (0.0, 0.5)
"""True rates that are spelled out, as shares of the threshold."""


@lru_cache
def images_needed(
    threshold: float, rate: float, level: float = 0.95, step: int = 1, anytime: bool = True
) -> int | None:
    """Fewest images, a multiple of ``step``, that let a cell pass if the share ``rate`` is flagged.

    With a rate above zero that is what about half of such cells need; others need more. None where
    20,000 are too few, as at a rate that is not below the threshold.

    Args:
        anytime: whether images are drawn until a cell is decided, or their number fixed beforehand.
    """
    if not rate < threshold < 1:
        return None
    for n in range(step, _MOST + 1, step):
        k = round(n * rate)
        if anytime:
            p_met = 1 / max(1.0, e_below([1.0] * k + [0.0] * (n - k), threshold))
        else:
            p_met = evidence.rate(k, n, threshold, level).p_met
        if p_met <= 1 - level:
            return n
    return None


def needed(threshold: float, level: float, step: int, most: int, anytime: bool) -> str:
    """The same for people: at no flagged image, and at half the threshold.

    Args:
        most: images that a cell gets; whether they are enough is said.
    """
    step = step if anytime else 1
    clean, half = (images_needed(threshold, threshold * r, level, step, anytime) for r in _RATES)
    if clean is None:
        return f"no number of images shows that a rate is at most {100 * threshold:g} %"
    said = (
        f"to pass at {100 * threshold:g} % takes {clean} images if none is flagged and about "
        f"{half or f'more than {_MOST:,}'} if {50 * threshold:g} % are"
    )
    if clean > most:
        return f"{said}; with {most} no cell can: raise max_images"
    return said if half is not None and half <= most else f"{said}; {most} at most are drawn"
