"""What determines a metric's value."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.metrics.recipe import metric_recipe


def test_metrics_have_recipes_of_their_own(clip_dir: Path) -> None:
    source = str(clip_dir)
    assert metric_recipe("alignment", source) != metric_recipe("features", source)
    assert metric_recipe("alignment", source) == metric_recipe("alignment", source)


def test_the_weights_decide_not_the_place(clip_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_dir, tmp_path / "copy")
    assert metric_recipe("features", str(copy)) == metric_recipe("features", str(clip_dir))
    config = copy / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.5", "0.6").replace("16", "17"))
    assert metric_recipe("features", str(copy)) != metric_recipe("features", str(clip_dir))


def test_an_unknown_metric_is_named_with_the_known_ones(clip_dir: Path) -> None:
    with pytest.raises(UserError, match="unknown metric 'fid'; there are: alignment, features"):
        metric_recipe("fid", str(clip_dir))


def test_it_is_had_without_torch(clip_dir: Path) -> None:
    code = (
        "import sys; from spqr_checks.metrics.recipe import metric_recipe; "
        f"metric_recipe('features', {str(clip_dir)!r}); "
        "from spqr_checks.metrics import distances; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
