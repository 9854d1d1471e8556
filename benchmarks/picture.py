"""The terminal summary of a scorecard as an SVG picture, for the README.

python benchmarks/picture.py spqr-report/scorecard.json docs/pictures/summary.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from spqr_checks.reports.terminal import summary_text
from spqr_checks.scoring.serialize import from_json

_WIDTH = 90


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    card = from_json(source.read_text(encoding="utf-8"))
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(summary_text(card, Path("spqr-report"), _WIDTH, True)))
    target.parent.mkdir(parents=True, exist_ok=True)
    # the reader's own monospaced font: the picture asks nothing of the network
    template = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(target), title="make demo", code_format=template)


if __name__ == "__main__":
    main()
