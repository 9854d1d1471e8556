"""Contact sheets: whole or not at all, readable, and nothing recognisable where flagged."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sample_cards import PASSED, draw_images, result

from spqr_checks.errors import UserError
from spqr_checks.reports.images import (
    SHOWN,
    TILE,
    blur,
    caption,
    chosen,
    drawable,
    grid,
    sheet,
)
from spqr_checks.scoring.cell_result import ImageRef


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def shape(name: str, size: int, at: int = 0) -> Image.Image:
    """A red shape of about the same area on a light ground."""
    image = Image.new("RGB", (size, size), (240, 235, 220))
    draw = ImageDraw.Draw(image)
    unit = size / 32
    middle = size / 2 + at * unit
    if name == "square":
        r = 7 * unit
        draw.rectangle((middle - r, size / 2 - r, middle + r, size / 2 + r), fill=(220, 20, 30))
    elif name == "disc":
        r = 7.9 * unit
        draw.ellipse((middle - r, size / 2 - r, middle + r, size / 2 + r), fill=(220, 20, 30))
    else:
        r = 10 * unit
        points = [(middle, size / 2 - r), (middle + r, size / 2 + r), (middle - r, size / 2 + r)]
        draw.polygon(points, fill=(220, 20, 30))
    return image


def pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image.convert("RGB"), dtype=np.float64)


# ---- whole or not at all -----------------------------------------------------------------


def test_a_missing_image_is_an_error_and_not_a_blank(tmp_path: Path) -> None:
    refs = draw_images(tmp_path, [False, True])
    (tmp_path / refs[1].path).unlink()
    with pytest.raises(UserError, match=r"images/01\.png is missing"):
        grid(refs, tmp_path, 2)


def test_a_missing_image_is_an_error_even_if_it_would_not_be_shown(tmp_path: Path) -> None:
    refs = draw_images(tmp_path, [False] * (SHOWN + 1))
    (tmp_path / refs[-1].path).unlink()
    with pytest.raises(UserError, match="is missing"):
        sheet(result(PASSED.cell, images=refs), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no picture", "half"])
def test_a_damaged_image_is_an_error(tmp_path: Path, damage: bytes | str) -> None:
    (ref,) = draw_images(tmp_path, [False], size=64)
    path = tmp_path / ref.path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(damage, str) else damage)
    with pytest.raises(UserError, match="cannot be read"):
        grid([ref], tmp_path, 1)


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "images/../../outside.png"])
def test_nothing_outside_the_store_is_ever_opened(tmp_path: Path, path: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    store = tmp_path / "store"
    (store / "images").mkdir(parents=True)
    with pytest.raises(UserError, match="outside the store"):
        grid([ImageRef(path, "x", 0, False)], store, 1)


@pytest.mark.parametrize(("count", "columns"), [(0, 3), (1, 0)])
def test_a_sheet_of_nothing_is_refused(tmp_path: Path, count: int, columns: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        grid(draw_images(tmp_path, [False] * count), tmp_path, columns)


# ---- what is on the sheet ----------------------------------------------------------------


@pytest.mark.parametrize(("count", "columns", "grid_size"), [(1, 4, (1, 1)), (7, 3, (3, 3))])
def test_images_are_laid_out_in_rows(
    tmp_path: Path, count: int, columns: int, grid_size: tuple[int, int]
) -> None:
    image = opened(grid(draw_images(tmp_path, [False] * count), tmp_path, columns))
    wide, high = grid_size
    assert image.format == "PNG"
    assert image.width // TILE == wide
    assert image.height // TILE - (image.height % TILE == 0) in (high, high + 1)


def test_small_images_keep_their_pixels(tmp_path: Path) -> None:
    refs = draw_images(tmp_path, [False])
    tile = opened(grid(refs, tmp_path, 1)).crop((12, 12, 12 + TILE, 12 + TILE))
    small = Image.open(tmp_path / refs[0].path).convert("RGB")
    assert np.array_equal(pixels(tile.resize((32, 32), Image.Resampling.BOX)), pixels(small))
    assert len(tile.getcolors(maxcolors=10**6) or []) == 2


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    refs = draw_images(tmp_path, [False, True, True])
    assert grid(refs, tmp_path, 2) == grid(refs, tmp_path, 2)


@pytest.mark.parametrize("flagged", [True, None])
def test_what_is_not_judged_safe_is_blurred_unless_someone_asks_to_see_it(
    tmp_path: Path, flagged: bool | None
) -> None:
    refs = [replace(ref, flagged=flagged) for ref in draw_images(tmp_path, [True])]
    box = (12, 12, 12 + TILE, 12 + TILE)
    sharp = pixels(opened(grid(refs, tmp_path, 1, blur_flagged=False)).crop(box))
    soft = pixels(opened(grid(refs, tmp_path, 1)).crop(box))
    original = Image.open(tmp_path / refs[0].path).resize((TILE, TILE), Image.Resampling.NEAREST)
    assert np.array_equal(sharp, pixels(original))
    assert np.abs(np.diff(soft, axis=0)).max() < 0.2 * np.abs(np.diff(sharp, axis=0)).max()


def test_images_that_are_not_flagged_stay_sharp(tmp_path: Path) -> None:
    refs = draw_images(tmp_path, [False])
    assert grid(refs, tmp_path, 1) == grid(refs, tmp_path, 1, blur_flagged=False)


@pytest.mark.parametrize("size", [32, 128, 512])
@pytest.mark.parametrize("pair", [("square", "disc"), ("square", "triangle"), ("disc", "triangle")])
def test_blurred_shapes_cannot_be_told_apart(size: int, pair: tuple[str, str]) -> None:
    one, other = (pixels(shape(name, size)) for name in pair)
    blurred = [pixels(blur(shape(name, size))) for name in pair]
    assert np.abs(one - other).max() > 150
    assert np.abs(blurred[0] - blurred[1]).max() < 16


@pytest.mark.parametrize("size", [32, 512])
def test_a_blurred_image_has_no_edges_left(size: int) -> None:
    image = pixels(blur(shape("triangle", size)))
    steps = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    assert steps <= max(1, 2 * TILE / size)


def test_an_image_of_one_colour_stays_that_colour() -> None:
    image = Image.new("RGB", (32, 24), (10, 200, 30))
    assert np.abs(pixels(blur(image)) - pixels(image)).max() <= 1


# ---- captions ----------------------------------------------------------------------------


def test_a_caption_holds_number_seed_and_prompt() -> None:
    assert caption(ImageRef("a.png", "a red triangle", 7, False), 3) == [
        "3 · seed 7",
        "a red triangle",
    ]


def test_a_caption_says_that_an_image_is_flagged() -> None:
    assert caption(ImageRef("a.png", "x", 7, True), 1)[0] == "1 · seed 7 · flagged"
    assert caption(ImageRef("a.png", "x", 7, None), 1)[0] == "1 · seed 7 · not judged"


def test_accents_are_dropped_as_the_font_has_none() -> None:
    assert drawable("un triángulo rojo, señal") == "un triangulo rojo, senal"


@pytest.mark.parametrize("prompt", ["مثلث أحمر", "लाल त्रिकोण", "红色三角形", "a 🔺 sign"])
def test_prompts_in_other_scripts_point_to_the_list(prompt: str) -> None:
    assert drawable(prompt) is None
    lines = caption(ImageRef("a.png", prompt, 7, False), 12)
    assert "(prompt 12: see the list)" in " ".join(lines)


@settings(deadline=None)
@given(st.text(st.characters()), st.integers(-(2**63), 2**63))
def test_every_prompt_gets_a_caption_of_a_few_printable_lines(prompt: str, seed: int) -> None:
    lines = caption(ImageRef("a.png", prompt, seed, True), 1)
    assert len(lines) <= 4
    assert all(line.isprintable() for line in lines)


def test_a_long_prompt_is_cut_with_a_sign(tmp_path: Path) -> None:
    long = ImageRef("a.png", "very " * 60 + "long", 7, False)
    longest = ImageRef("a.png", "x" * 500, 7, False)
    for ref in (long, longest):
        lines = caption(ref, 1)
        assert len(lines) == 4
        assert lines[-1].endswith("…")


# ---- which images ------------------------------------------------------------------------


def test_flagged_images_come_first_where_not_all_fit(tmp_path: Path) -> None:
    flags = [False] * 30 + [True] * 3
    refs = [ImageRef(f"{i}.png", "x", i, flag) for i, flag in enumerate(flags)]
    assert [ref.seed for ref in chosen(refs)] == [30, 31, 32, *range(21)]
    assert chosen(refs[:SHOWN]) == refs[:SHOWN]
