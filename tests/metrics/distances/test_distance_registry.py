"""Distances by name."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from spqr_checks.errors import UserError
from spqr_checks.metrics.distances.registry import NAMES, distance_named
from spqr_checks.settings import Settings


def test_every_distance_of_the_settings_is_there_under_its_own_name() -> None:
    assert set(get_args(Settings.model_fields["distance"].annotation)) == set(NAMES)
    assert [distance_named(name).name for name in NAMES] == list(NAMES)


def test_an_unknown_one_is_named_with_the_known() -> None:
    with pytest.raises(UserError, match="unknown distance 'is'; there are: cmmd, fid, kid"):
        distance_named("is")


def test_none_of_them_loads_torch() -> None:
    code = (
        "import sys; from spqr_checks.metrics.distances.registry import NAMES, distance_named\n"
        "from spqr_checks.metrics.distances.bootstrap import split_interval\n"
        "for n in NAMES: split_interval([[0.],[1.],[3.],[4.]], [[0.],[2.]], distance_named(n), 0)\n"
        "assert not {'torch', 'torchmetrics', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
