"""Distances by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spqr_checks.errors import UserError
from spqr_checks.metrics.distances import DISTANCES, distance_named


def test_every_distance_goes_by_the_name_of_its_file() -> None:
    assert DISTANCES.names() == ("cmmd", "fid", "kid")
    assert [distance_named(name).name for name in DISTANCES.names()] == list(DISTANCES.names())


def test_an_unknown_one_is_named_with_the_known() -> None:
    with pytest.raises(UserError, match="unknown distance 'is'; there are: cmmd, fid, kid"):
        distance_named("is")


def test_none_of_them_loads_torch() -> None:
    code = (
        "import sys; from spqr_checks.metrics.distances import DISTANCES, distance_named\n"
        "from spqr_checks.metrics.distances import resampled\n"
        "for n in DISTANCES.names():\n"
        "    resampled([[0.],[1.],[3.],[4.]], [[0.],[2.]], distance_named(n), 0)\n"
        "assert not {'torch', 'torchmetrics', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
