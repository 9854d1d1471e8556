"""The line on what the distance behind quality was taken of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from sample_cards import QUALITY, card

from spqr_checks.reports.markdown import summary
from spqr_checks.reports.selection import how_decided
from spqr_checks.reports.terminal import show

DECIDED = {
    "mode": "fixed",
    "images": 24,
    "level": 0.95,
    "multiplicity": "none",
    "distance": "fid",
    "features": "vit=some/where",
}


def with_quality(dimensions: int, n: int = 168, **settings: Any) -> Any:
    details = {"distance": 1.0, "reference_images": 512, "dimensions": dimensions}
    given = DECIDED | settings
    return card(settings=given, cells=(replace(QUALITY, n=n, details=details),))


def test_numbers_of_images_stand_in_every_report() -> None:
    line = (
        "quality: fid of 168 images of the candidate (and as many of the base) to 512 reference "
        "images, 64 dimensions by vit"
    )
    shown = with_quality(64)
    assert line in how_decided(shown)
    assert line in summary(shown)
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(shown, console)
    assert line in console.export_text()


@pytest.mark.parametrize(
    ("distance", "dimensions", "n", "warned"),
    [
        ("fid", 768, 168, True),
        ("fid", 168, 168, True),
        ("fid", 64, 168, False),
        ("fid", 512, 2000, True),
        ("kid", 768, 168, False),
    ],
)
def test_a_frechet_distance_of_few_images_is_called_biased(
    distance: str, dimensions: int, n: int, warned: bool
) -> None:
    lines = how_decided(with_quality(dimensions, n, distance=distance))
    assert any("fewer images than dimensions" in line for line in lines) is warned


def test_scorecards_without_these_numbers_say_nothing() -> None:
    assert len(how_decided(card(settings=DECIDED))) == 1
