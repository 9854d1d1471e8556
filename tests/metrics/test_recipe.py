"""What determines a metric's value."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.metrics.model_metrics import Needs
from spqr_checks.metrics.recipe import adherence_recipe, features_recipe, quality_recipe


def test_metrics_on_one_model_have_recipes_of_their_own(clip_dir: Path) -> None:
    source = str(clip_dir)
    recipes = [
        adherence_recipe("clip", source),
        adherence_recipe(f"pickscore={source}", ""),
        adherence_recipe(f"vqa={source}", ""),
        features_recipe("clip", source),
        features_recipe(f"vit={source}", ""),
    ]
    assert len({json.dumps(recipe) for recipe in recipes}) == 5
    assert len({recipe["code"] for recipe in recipes}) == 5
    assert len({recipe["metric"] for recipe in recipes}) == 5
    assert adherence_recipe("clip", source) == adherence_recipe(f"clip={source}", "other")


def test_the_weights_decide_not_the_place(clip_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_dir, tmp_path / "copy")
    for recipe in (adherence_recipe, features_recipe):
        assert recipe("clip", str(copy)) == recipe("clip", str(clip_dir))
    config = copy / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.5", "0.6").replace("16", "17"))
    for recipe in (adherence_recipe, features_recipe):
        assert recipe("clip", str(copy)) != recipe("clip", str(clip_dir))


def test_quality_is_of_features_by_a_distance(clip_dir: Path) -> None:
    one, other = (quality_recipe("clip", str(clip_dir), name) for name in ("kid", "fid"))
    assert one["distance_code"] != other["distance_code"]
    assert one | {"distance": "fid", "distance_code": other["distance_code"]} == other
    assert one.items() >= features_recipe("clip", str(clip_dir)).items()


def test_a_missing_package_is_named_with_its_extra(clip_dir: Path) -> None:
    needs = Needs(packages=("numpy", "no-such-thing"), extra="more")
    with pytest.raises(UserError, match=r"it needs no-such-thing, .*'spqr-checks\[more"):
        needs.recipe("it", str(clip_dir))
    with pytest.raises(UserError, match="it needs no-such-thing, .*: pip install no-such-thing"):
        Needs(packages=("no-such-thing",)).recipe("it", str(clip_dir))


def test_it_is_had_without_torch(clip_dir: Path) -> None:
    code = (
        "import sys; from spqr_checks.metrics.recipe import adherence_recipe, quality_recipe\n"
        f"for name in ('clip', 'pickscore', 'vqa'): adherence_recipe(f'{{name}}={clip_dir}', '')\n"
        f"quality_recipe('vit={clip_dir}', '', 'fid')\n"
        "assert not {'torch', 'transformers', 'torchmetrics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
