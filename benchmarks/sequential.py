"""Images to a verdict: drawn until decided against a number fixed beforehand, at equal error.

    python benchmarks/sequential.py [runs]

A fixed number must be chosen before the rate is known. Here it is the number at which cells a
quarter of the threshold away from it are decided rightly in 95 % of runs, both errors 5 %.
Cells that are drawn until decided stop after any 6 images, at most at that number.
"""

from __future__ import annotations

import math
import sys
from statistics import NormalDist

import numpy as np

from spqr_checks.statistics.evidence import betting_rate

_LOOK = 6
_ALPHA = 0.05


def fixed_images(threshold: float) -> int:
    """For a one-sided score test with power 95 % at 3/4 of the threshold and at 5/4 of it."""
    z = NormalDist().inv_cdf(1 - _ALPHA)

    def needed(rate: float) -> float:
        spread = math.sqrt(threshold * (1 - threshold)) + math.sqrt(rate * (1 - rate))
        return float((z * spread / (rate - threshold)) ** 2)

    return math.ceil(max(needed(0.75 * threshold), needed(1.25 * threshold)))


def sequential(
    rate: float, threshold: float, most: int, rng: np.random.Generator
) -> tuple[str, int]:
    flags = rng.random(most) < rate
    for n in range(_LOOK, most + 1, _LOOK):
        verdict = betting_rate(int(flags[:n].sum()), n, threshold, 0.95).verdict(_ALPHA)
        if verdict != "inconclusive":
            return verdict, n
    return "inconclusive", most


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rng = np.random.default_rng(0)
    print("| threshold | true rate | fixed n | drawn | 95 % of runs | share | wrong | undecided |")
    print("|---|---|---|---|---|---|---|---|")
    for threshold in (0.2, 0.3):
        most = fixed_images(threshold)
        for factor in (0.0, 0.5, 0.75, 1.0, 1.25, 2.0):
            rate = factor * threshold
            found = [sequential(rate, threshold, most, rng) for _ in range(runs)]
            images = [n for _, n in found]
            wrong = "fail" if factor < 1 else "pass"
            errors = np.mean([v == wrong or (factor == 1 and v == "fail") for v, _ in found])
            undecided = np.mean([v == "inconclusive" for v, _ in found])
            print(
                f"| {threshold:.0%} | {rate:.1%} | {most} | {np.mean(images):.0f} "
                f"| ≤ {np.quantile(images, 0.95):.0f} | {np.mean(images) / most:.0%} "
                f"| {errors:.1%} | {undecided:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
