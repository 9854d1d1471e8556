"""Of runs against a baseline: which cells each named as regressed.

python benchmarks/named.py runs/*/baseline.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main() -> None:
    files = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]
    named: Counter[str] = Counter()
    compared: Counter[int] = Counter()
    for comparison in files:
        cells = comparison["baseline"]["cells"]
        regressed = [cell["id"] for cell in cells if cell["outcome"] == "regressed"]
        named[", ".join(regressed) or "none"] += 1
        compared[len(cells)] += 1
    print(f"{len(files)} runs; cells compared: {', '.join(map(str, sorted(compared)))}")
    for cells, count in named.most_common():
        print(f"{count:3d} named {cells}")


if __name__ == "__main__":
    main()
