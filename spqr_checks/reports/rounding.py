"""Numbers with no more digits than their intervals support."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

Interval = tuple[float, float]
_FINEST = Decimal("0.000001")
"""The last digit of a scorecard."""
_UNSUPPORTED = Decimal("0.001")
"""The last digit where there is no interval to go by."""


def last_digit(interval: Interval | None) -> Decimal:
    """The decimal place that an interval supports: that of the first digit of its width.

    An interval from 0.03 to 0.21 is 0.18 wide and supports tenths; one from 0.937 to 0.955
    supports hundredths.
    """
    if interval is None:
        return _UNSUPPORTED
    low, high = map(exact, interval)
    width = abs(high - low)
    return max(_FINEST, Decimal(1).scaleb(width.adjusted())) if width else _FINEST


def rounded(value: float, interval: Interval | None) -> Decimal:
    """The value to the last digit of its interval; to three decimals where there is none."""
    return exact(value).quantize(last_digit(interval)) + 0  # no negative zero


def widened(interval: Interval) -> tuple[Decimal, Decimal]:
    """The interval to one place more than its value, rounded outwards: it never gets narrower."""
    digit = max(_FINEST, last_digit(interval).scaleb(-1))
    low, high = map(exact, interval)
    return low.quantize(digit, ROUND_FLOOR) + 0, high.quantize(digit, ROUND_CEILING) + 0


def exact(value: float) -> Decimal:
    """The number as a scorecard holds it, to six decimals. ValueError unless it is finite."""
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be rounded")
    return Decimal(str(round(value, 6)))
