"""What ``scaling.py`` counted, drawn over the number of concepts, and how joint training leads.

    python benchmarks/curves.py out/counts.jsonl docs/pictures/scaling.svg

All seeds together, with Wilson intervals. *Lead* is the merge's unsafe rate less that of the joint
LoRA, in points, with Newcombe's interval for two independent rates (images are not paired) and the
lead of each seed beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from statsmodels.stats.proportion import confint_proportions_2indep

from spqr_checks.statistics.intervals import wilson

PANELS = {
    "icons": "Icons unsafe",
    "compositions": "Compositions unsafe",
    "benign": "Benign scenes right",
}
LINES = {
    "joint": ("joint LoRA", "#1f5fa8", "none"),
    "regmean-strong": ("RegMean, s 1.5, w 4", "#c1500f", "7 3"),
    "regmean-stronger": ("RegMean, s 2, w 16", "#8a3fa0", "9 3 2 3"),
    "co-merge": ("Co-Merge", "#555", "2 3"),
}
"""Name, colour and dashes of the rows that are drawn."""
WIDTH, HEIGHT, LEFT, TOP, GAP = 230, 180, 44, 34, 34
Counts = dict[tuple[int, str], dict[int, Mapping[str, int]]]
"""Hits of every kind, by number of concepts and row, and by seed."""


def read(path: Path) -> tuple[Counts, int]:
    """The counts of a file, and images of each kind and seed; one set of options and one n."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    if len(several := {(line["options"], line["n"]) for line in lines}) != 1:
        raise SystemExit(f"{path}: counts of {len(several)} options and n; give those of one")
    found: Counts = {}
    for line in lines:
        found.setdefault((line["concepts"], line["merge"]), {})[line["seed"]] = line["hits"]
    return found, lines[0]["n"]


def picture(counts: Counts, n: int) -> str:
    """An SVG with a panel for each kind: rates over the number of concepts, with intervals."""
    sizes = sorted({size for size, rule in counts if rule in LINES})
    width = len(PANELS) * (WIDTH + GAP + LEFT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 84}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>Unsafe and right images in percent over the number of concepts</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (kind, title) in enumerate(PANELS.items()):
        left = LEFT + number * (WIDTH + GAP + LEFT)
        parts.append(f'<g transform="translate({left} {TOP})">{_axes(title, sizes)}')
        for place, rule in enumerate(LINES):
            of = {s: counts[s, rule] for s in sizes if (s, rule) in counts}
            parts.append(_line(rule, {s: _rate(of[s], kind, n) for s in of}, sizes, place))
        parts.append("</g>")
    for place, (name, colour, dashes) in enumerate(LINES.values()):
        x, y = LEFT + 170 * place, TOP + HEIGHT + 66
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<path d="M{x} {y}h24" {stroke}/>')
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _rate(of: Mapping[int, Mapping[str, int]], kind: str, n: int) -> tuple[float, float, float]:
    k, total = sum(hits[kind] for hits in of.values()), n * len(of)
    return k / total, *wilson(k, total)


def _x(size: int, sizes: Sequence[int]) -> float:
    return 16 + (WIDTH - 32) * (size - sizes[0]) / max(sizes[-1] - sizes[0], 1)


def _y(rate: float) -> float:
    return HEIGHT * (1 - rate)


def _axes(title: str, sizes: Sequence[int]) -> str:
    lines = [f'<text x="0" y="-14" font-weight="bold">{title}, %</text>']
    for rate in (0, 0.25, 0.5, 0.75, 1):
        y = _y(rate)
        lines.append(f'<path d="M0 {y:g}H{WIDTH}" stroke="#ddd"/>')
        lines.append(f'<text x="-8" y="{y + 4:g}" text-anchor="end">{100 * rate:g}</text>')
    for size in sizes:
        x, y = _x(size, sizes), HEIGHT + 18
        lines.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{size}</text>')
    x, y = WIDTH / 2, HEIGHT + 38
    lines.append(f'<text x="{x}" y="{y}" text-anchor="middle">concepts</text>')
    return "".join(lines)


def _line(
    rule: str, rates: Mapping[int, tuple[float, float, float]], sizes: Sequence[int], place: int
) -> str:
    """Points beside each other where several lines have one number of concepts."""
    _, colour, dashes = LINES[rule]
    at = {size: _x(size, sizes) + 4 * (place - 1.5) for size in rates}
    corners = " ".join(f"{at[size]:.1f},{_y(rate):.1f}" for size, (rate, _, _) in rates.items())
    stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
    shapes = [f'<polyline points="{corners}" fill="none" {stroke}/>']
    for size, (rate, low, high) in rates.items():
        span = f"M{at[size]:.1f} {_y(low):.1f}V{_y(high):.1f}"
        shapes.append(f'<path d="{span}" stroke="{colour}" stroke-width="1.5"/>')
        shapes.append(f'<circle cx="{at[size]:.1f}" cy="{_y(rate):.1f}" r="3.5" fill="{colour}"/>')
    return "".join(shapes)


def lead(counts: Counts, n: int, size: int, rule: str, kind: str) -> str:
    """How many points more of a merge's images are hits than of the joint LoRA's."""
    merged, joint = counts[size, rule], counts[size, "joint"]
    seeds = sorted(merged.keys() & joint.keys())
    k, other = (sum(of[seed][kind] for seed in seeds) for of in (merged, joint))
    total = n * len(seeds)
    low, high = confint_proportions_2indep(k, total, other, total, method="newcomb")
    each = ", ".join(f"{100 * (merged[s][kind] - joint[s][kind]) / n:+.0f}" for s in seeds)
    return f"{100 * (k - other) / total:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] ({each})"


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    counts, n = read(source)
    target.write_text(picture(counts, n), encoding="utf-8")
    print(f"| concepts: merge less joint | {' | '.join(PANELS)} |\n|---|---|---|---|")
    for size, rule in sorted(key for key in counts if key[1] in LINES and key[1] != "joint"):
        if (size, "joint") in counts:
            cells = " | ".join(lead(counts, n, size, rule, kind) for kind in PANELS)
            print(f"| {size}: {rule} | {cells} |")


if __name__ == "__main__":
    main()
