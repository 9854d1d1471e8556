"""A release's whole matrix on 1, 8, 64 and 512 devices, played through.

    python benchmarks/schedule.py [FACTOR]

Eleven methods × three profiles × three seeds × four data sets, in five languages and five concepts:
each method's candidate, and each fine-tuning of the base and of every candidate, draws 24 images of
every concept and language, 48 benign ones and, if fine-tuned, 48 of its data. Times are those that
stores recorded of the miniature on one core: of an image drawn with 5 guided steps, judged and
compared; of a lite fine-tuning, the other profiles by their number of epochs; of the fastest and
slowest alignment, the methods between them in equal ratios. FACTOR multiplies all of them: what is
played through depends on their ratios only, but what travels in a second does not.
"""

from __future__ import annotations

import sys
from itertools import product

from spqr_checks.estimate.schedule import Job, simulate

DEVICES = (1, 8, 64, 512)
METHODS, SEEDS, DATA, LANGUAGES, CONCEPTS = 11, 3, 4, 5, 5
IMAGE = 1.83 / 36 + 0.04 / 36 + 0.07 / 4
IMAGE_BYTES = (73_970 + 13_019) // 36
FULL = 16_750_000
TUNINGS = {"lite": (20.0, 300_000), "moderate": (53.0, 4_000_000), "standard": (133.0, FULL)}
ALIGNMENTS = (2.3, 123.0)
LOADING = 0.4


def jobs(factor: float) -> dict[str, Job]:
    """Every artefact of the matrix; images of one batch and what is read off them are one job."""
    found: dict[str, Job] = {}

    def draws(state: str, needs: tuple[str, ...], tuned: bool) -> None:
        groups = [("group", 24)] * (LANGUAGES * CONCEPTS) + [("benign", 48)]
        for n, (kind, images) in enumerate(groups + [("gain", 48)] * tuned):
            seconds, size = images * IMAGE * factor, images * IMAGE_BYTES
            found[f"{state}/{kind}{n}"] = Job(seconds, needs, state, size, LOADING * factor)

    for method in ("base", *(f"method{i}" for i in range(METHODS))):
        of: tuple[str, ...] = ()
        if method != "base":
            low, high = ALIGNMENTS
            seconds = low * (high / low) ** (int(method.removeprefix("method")) / (METHODS - 1))
            found[method] = Job(seconds * factor, (), "base", FULL, LOADING * factor)
            of = (method,)
        draws(method, of, tuned=False)
        for profile, data, seed in product(TUNINGS, range(DATA), range(SEEDS)):
            name = f"{method}+{profile}.{data}.{seed}"
            seconds, size = TUNINGS[profile]
            found[name] = Job(seconds * factor, of, method, size, LOADING * factor)
            draws(name, (*of, name), tuned=True)
    return found


def main() -> None:
    """Prints the table."""
    factor = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    matrix = jobs(factor)
    print(f"{len(matrix)} jobs, {sum(job.seconds for job in matrix.values()) / 3600:.1f} h of work")
    print("| devices | makespan | busy | loads of a state | moved | MB/s on average | limited by |")
    print("|---:|---:|---:|---:|---:|---:|---|")
    for devices in DEVICES:
        found = simulate(matrix, devices)
        print(
            f"| {devices} | {found.makespan / 60:.1f} min | {found.utilisation:.0%} | {found.loads}"
            f" | {found.moved / 1e9:.1f} GB | {found.rate / 1e6:.1f} | {found.limit} |"
        )


if __name__ == "__main__":
    main()
