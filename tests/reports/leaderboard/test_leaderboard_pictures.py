"""Which pictures a leaderboard shows, and how many bytes of them."""

from __future__ import annotations

import base64
import io
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, card
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.reports.album import Album
from spqr_checks.reports.images import TILE
from spqr_checks.reports.leaderboard.page import page
from spqr_checks.reports.leaderboard.pictures import PER_CANDIDATE
from spqr_checks.reports.pairs import pairs
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.scorecard import Scorecard

DRIFTER = card(MODELS[2])
PAIR = '<div class="pair">'


def opened(uri: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    return image


def saved(root: Path, size: int, flagged: bool) -> ImageRef:
    image = Image.new("RGB", (size, size), (250, 250, 250))
    image.paste((10, 10, 200), (0, 0, size // 2, size))
    image.save(root / f"{size}.png")
    return ImageRef(f"{size}.png", "a box", 1, flagged)


def shown(scorecard: Scorecard, album: Album) -> str:
    return page(rank([Entry("x", scorecard)]), {"x": scorecard}, album)


# ---- pairs -----------------------------------------------------------------------------------


def test_the_two_of_a_pair_have_one_prompt_and_seed() -> None:
    found = pairs(DRIFTER)
    assert found
    for pair in found:
        assert (pair.before.prompt, pair.before.seed) == (pair.after.prompt, pair.after.seed)
        assert "-aligned/" in pair.before.path
        assert "-aligned/" not in pair.after.path
        assert pair.cell.concept in pair.after.prompt


def test_newly_unsafe_pairs_come_first_and_from_different_cells() -> None:
    changes = [pair.change for pair in pairs(DRIFTER)]
    new = changes.count("newly unsafe")
    assert new > PER_CANDIDATE
    assert changes[:new] == ["newly unsafe"] * new
    first = [pair.cell for pair in pairs(DRIFTER)[:5]]
    assert len(set(first)) == 5


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (False, True, "newly unsafe"),
        (True, True, "unsafe before and after"),
        (True, False, "no longer unsafe"),
        (False, False, "safe before and after"),
    ],
)
def test_a_pair_says_what_changed(before: bool, after: bool, change: str) -> None:
    pair = pairs(DRIFTER)[0]
    made = replace(
        pair, before=replace(pair.before, flagged=before), after=replace(pair.after, flagged=after)
    )
    assert made.change == change


def test_without_fine_tuning_there_are_no_pairs(tmp_path: Path) -> None:
    cells = tuple(r for r in DRIFTER.cells if r.cell.state.tuning is None)
    assert pairs(replace(DRIFTER, cells=cells)) == []


# ---- the album -------------------------------------------------------------------------------


def test_small_pictures_are_kept_to_the_pixel_and_large_ones_shrunk(tmp_path: Path) -> None:
    small, large = (
        (Album(tmp_path).pictures(saved(tmp_path, size, False)) or [])[0] for size in (32, 700)
    )
    assert opened(small.source).size == (32, 32)
    assert small.is_small
    assert opened(small.source).getpixel((3, 3)) == (10, 10, 200)
    assert max(opened(large.source).size) == TILE
    assert not large.is_small
    assert small.veil is None


@pytest.mark.parametrize("size", [32, 700])
def test_a_veil_shows_nothing_of_its_picture(tmp_path: Path, size: int) -> None:
    (picture,) = Album(tmp_path).pictures(saved(tmp_path, size, True)) or []
    assert picture.veil is not None
    veil = opened(picture.veil).convert("L")
    low, high = veil.getextrema()
    # the sharp edge from dark to light is gone
    row = [veil.getpixel((x, 8)) for x in range(16)]
    steps = [abs(int(a) - int(b)) for a, b in itertools.pairwise(row)]  # type: ignore[arg-type]
    assert max(steps) < 30 < 240 - 20
    assert high - low < 170  # type: ignore[operator]


def test_the_budget_ends_the_pictures_and_the_page_says_so(tmp_path: Path) -> None:
    scorecard = card(MODELS[2], tmp_path)
    full = shown(scorecard, Album(tmp_path))
    assert full.count(PAIR) == PER_CANDIDATE
    few = shown(scorecard, Album(tmp_path, budget=8000))
    assert 0 < few.count(PAIR) < PER_CANDIDATE
    assert "no room for more pictures" in few
    assert f"{len(pairs(scorecard)) - few.count(PAIR)} pairs not shown" in few
    assert sum(map(len, re.findall(r'src="([^"]*)"', few))) <= 8000


def test_a_missing_picture_is_said_and_not_left_blank(tmp_path: Path) -> None:
    text = shown(DRIFTER, Album(tmp_path))
    assert "is missing in the store" in text
    assert f"{len(pairs(DRIFTER))} pairs not shown" in text
    assert "<img" not in text


def test_a_picture_outside_the_store_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    ref = replace(saved(tmp_path, 32, False), path="../32.png")
    with pytest.raises(UserError, match="outside the store"):
        Album(tmp_path / "store").pictures(ref)
