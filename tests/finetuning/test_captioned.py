"""Folders of captioned images, and what bad ones get."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.finetuning.datasets import dataset_recipe, load_captions, load_images


def _paint(path: Path, colour: str = "red", size: tuple[int, int] = (4, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _metadata(folder: Path, rows: list[object]) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, named by metadata.jsonl."""
    _paint(tmp_path / "b.png", "blue")
    _paint(tmp_path / "in" / "a.jpg", "red")
    _metadata(
        tmp_path,
        [
            {"file_name": "in/a.jpg", "text": "a red field "},
            {"file_name": "b.png", "text": "नीला मैदान"},
        ],
    )
    return tmp_path


def _message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_images(str(folder))
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


# ---- what is read ----------------------------------------------------------------------------


def test_metadata_in_json_lines_give_images_and_captions_in_their_order(folder: Path) -> None:
    data = load_images(str(folder))
    assert data.captions == ["a red field", "नीला मैदान"]
    assert [image.getpixel((0, 0)) for image in data.images] == [(254, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("field", ["text", "caption", "prompt"])
def test_metadata_in_csv_may_call_the_caption_text_caption_or_prompt(
    tmp_path: Path, field: str
) -> None:
    _paint(tmp_path / "a.png")
    csv = f'\ufefffile_name,{field}\r\na.png,"red, of course"\r\n'
    (tmp_path / "metadata.csv").write_text(csv, encoding="utf-8", newline="")
    assert load_images(str(tmp_path)).captions == ["red, of course"]


def test_without_metadata_each_image_has_a_text_file_beside_it(tmp_path: Path) -> None:
    for name in ("b", "a"):
        _paint(tmp_path / f"{name}.PNG")
        (tmp_path / f"{name}.txt").write_text(f"caption {name}\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("not an image")
    assert load_images(str(tmp_path)).captions == ["caption a", "caption b"]


def test_images_become_rgb_and_stand_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (4, 2), 90).save(tmp_path / "a.jpg", exif=turned)
    (tmp_path / "a.txt").write_text("grey")
    image = load_images(str(tmp_path)).images[0]
    assert (image.mode, image.size) == ("RGB", (2, 4))


def test_a_limit_takes_the_first_and_decodes_no_others(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"broken")
    assert load_images(str(folder), limit=1).captions == ["a red field"]


def test_captions_alone_decode_no_image(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"broken")
    assert load_captions(str(folder)) == ["a red field", "नीला मैदान"]


def test_links_into_a_cache_are_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    cache = tmp_path_factory.mktemp("cache")
    os.replace(folder / "b.png", cache / "blob")
    (folder / "b.png").symlink_to(cache / "blob")
    assert len(load_images(str(folder))) == 2


# ---- what bad folders get --------------------------------------------------------------------


def test_a_missing_folder(tmp_path: Path) -> None:
    message = _message(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "miniature:STYLE" in message


def test_a_folder_without_images(tmp_path: Path) -> None:
    assert "no images" in _message(tmp_path)


def test_metadata_without_rows(folder: Path) -> None:
    _metadata(folder, [])
    assert "metadata.jsonl: no images" in _message(folder)


def test_a_split_in_a_subfolder_is_pointed_to(folder: Path) -> None:
    split = folder / "train"
    split.mkdir()
    for name in ("metadata.jsonl", "b.png", "in"):
        (folder / name).rename(split / name)
    assert f"did you mean {split}?" in _message(folder)


def test_an_image_without_a_caption(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png")
    message = _message(tmp_path)
    assert "a.png: no caption" in message
    assert "a.txt" in message


def test_a_row_without_a_caption(folder: Path) -> None:
    _metadata(folder, [{"file_name": "b.png", "label": "blue"}])
    message = _message(folder)
    assert "metadata.jsonl:1: no caption" in message
    assert "text, caption or prompt" in message


def test_a_row_without_a_file_name(folder: Path) -> None:
    _metadata(folder, [{"image": "b.png", "text": "blue"}])
    assert "metadata.jsonl:1: no field 'file_name'" in _message(folder)


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_caption(folder: Path, empty: str) -> None:
    _metadata(folder, [{"file_name": "b.png", "caption": empty}])
    assert "metadata.jsonl:1: field 'caption' is empty" in _message(folder)


def test_an_empty_caption_file(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("  \n")
    assert "a.txt: the caption is empty" in _message(tmp_path)


def test_a_caption_that_is_no_text(folder: Path) -> None:
    _metadata(folder, [{"file_name": "b.png", "text": ["blue"]}])
    assert "metadata.jsonl:1: field 'text' must be text" in _message(folder)


@pytest.mark.parametrize("content", [b"no image at all", b"\x89PNG\r\n\x1a\n", b""])
def test_an_image_that_cannot_be_decoded(folder: Path, content: bytes) -> None:
    (folder / "b.png").write_bytes(content)
    assert "b.png: cannot be decoded" in _message(folder)


def test_a_truncated_image(folder: Path) -> None:
    _paint(folder / "b.png", size=(64, 64))
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    assert "b.png: cannot be decoded" in _message(folder)


def test_an_image_too_large_to_decode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert "too large" in _message(folder)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    _paint(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"file_name,text\na.png,caf\xe9\n")
    message = _message(tmp_path)
    assert f"{name}:2: not UTF-8" in message
    assert "save the file as UTF-8" in message


def test_a_caption_file_that_is_not_utf_8(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfea")
    assert "a.txt:1: not UTF-8" in _message(tmp_path)


@pytest.mark.parametrize("again", ["b.png", "./b.png", "in/../b.png"])
def test_an_image_named_twice(folder: Path, again: str) -> None:
    rows = [{"file_name": name, "text": "blue"} for name in ("b.png", again)]
    _metadata(folder, rows)
    message = _message(folder)
    assert f"metadata.jsonl:2: image {again} was already named in line 1" in message


def test_two_images_that_share_a_caption_file(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png")
    _paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("red")
    assert "a.jpg and a.png share the caption a.txt" in _message(tmp_path)


def test_metadata_that_name_a_missing_image(folder: Path) -> None:
    _metadata(folder, [{"file_name": "c.png", "text": "cyan"}])
    message = _message(folder)
    assert "metadata.jsonl:1: image c.png is missing" in message


@pytest.mark.parametrize("outside", ["../b.png", "/etc/hostname"])
def test_metadata_that_point_outside(folder: Path, outside: str) -> None:
    inner = folder / "in"
    _metadata(inner, [{"file_name": outside, "text": "blue"}])
    assert "is outside of" in _message(inner)


def test_both_kinds_of_metadata(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\nb.png,blue\n")
    assert "keep one of them" in _message(folder)


def test_metadata_that_are_no_json(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "x"}\n{oops\n')
    assert "metadata.jsonl:2: not JSON" in _message(folder)


def test_metadata_of_another_shape(folder: Path) -> None:
    _metadata(folder, [["b.png", "blue"]])
    assert "metadata.jsonl:1: expected an object" in _message(folder)


@pytest.mark.parametrize("row", ["a.png", "a.png,red,green"])
def test_csv_rows_with_more_or_fewer_fields_than_the_header(tmp_path: Path, row: str) -> None:
    _paint(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{row}\n")
    assert "metadata.csv:2: not as many fields as the header" in _message(tmp_path)


def test_csv_with_an_open_quote(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"red\n')
    assert "not CSV" in _message(tmp_path)


# ---- recipes ---------------------------------------------------------------------------------


def test_the_recipe_is_that_of_the_contents_not_of_the_place_or_the_layout(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for number, (name, text) in enumerate([("in/a.jpg", "a red field"), ("b.png", "नीला मैदान")]):
        image = other / f"{number}{Path(name).suffix}"
        image.write_bytes((folder / name).read_bytes())
        image.with_suffix(".txt").write_text(text, encoding="utf-8")
    assert dataset_recipe(str(folder)) == dataset_recipe(str(other))


def test_pixels_captions_and_their_order_are_in_the_recipe(folder: Path) -> None:
    recipes = [dataset_recipe(str(folder))]
    rows = [{"file_name": "b.png", "text": "blue"}, {"file_name": "in/a.jpg", "text": "red"}]
    _metadata(folder, rows)
    recipes.append(dataset_recipe(str(folder)))
    _metadata(folder, rows[::-1])
    recipes.append(dataset_recipe(str(folder)))
    _paint(folder / "b.png", "navy")
    recipes.append(dataset_recipe(str(folder)))
    _metadata(folder, rows[:1])
    recipes.append(dataset_recipe(str(folder)))
    assert len({json.dumps(recipe) for recipe in recipes}) == len(recipes)
