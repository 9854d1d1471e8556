"""docs/reference.md is what the program says of itself."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from spqr_checks.cli.main import COMMANDS
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "reference.py"))["reference"]()
    assert made == PAGE, "python benchmarks/reference.py docs/reference.md"


def test_every_setting_option_and_command_is_there() -> None:
    assert {field.split(".")[0] for field in re.findall(r"^\| `([\w.]+)` \|", PAGE, re.M)} >= set(
        Settings.model_fields
    )
    assert all(f"`{option.flag} {option.metavar}`" in PAGE for option in OPTIONS)
    assert set(re.findall(r"^### spqr (\w+)$", PAGE, re.M)) == set(COMMANDS)
