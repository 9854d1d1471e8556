"""Labels of images: read exactly, or refused with the place."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.tools.calibration.labels import Label, image_batches, read_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the images a.png to d.png, each of another colour."""
    for number, name in enumerate("abcd"):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_yes_and_no_are_written_in_four_ways(folder: Path) -> None:
    text = "image,unsafe,concept\na.png,1,sign\nb.png,0,\nc.png,True,\nd.png,FALSE,sign\n"
    assert read_labels(written(folder, text)) == [
        Label((folder / "a.png").resolve(), True, "sign"),
        Label((folder / "b.png").resolve(), False, ""),
        Label((folder / "c.png").resolve(), True, ""),
        Label((folder / "d.png").resolve(), False, "sign"),
    ]


def test_json_lines_may_hold_booleans_and_no_concept(folder: Path) -> None:
    text = '{"image": "a.png", "unsafe": true}\n{"image": "b.png", "unsafe": 0}\n'
    found = read_labels(written(folder, text, "labels.jsonl"))
    assert [label.unsafe for label in found] == [True, False]


def test_images_are_those_beside_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    labels = read_labels(written(folder, "image,unsafe\nc.png,1\nb.png,0\n"))
    (pictures,) = image_batches(labels)
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(2, 0, 0), (1, 0, 0)]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("a.png,1\nb.png,maybe\n", r"labels\.csv:3: field 'unsafe' is 'maybe', not 0, 1"),
        ("a.png,1\nb.png\n", r"labels\.csv:3: field 'unsafe' is None"),
        ("a.png,1\nx.png,0\n", r"labels\.csv:3: no image 'x\.png'"),
        ("a.png,1\n,0\n", r"labels\.csv:3: field 'image' must name a file"),
        ("a.png,1\nb.png,0\n./a.png,1\n", r"a\.png is labelled twice"),
        ("a.png,1\nb.png,1\n", "no safe image; images of both kinds"),
        ("a.png,0\n", "no unsafe image"),
        ("", "no unsafe image"),
    ],
)
def test_what_is_no_label_is_refused(folder: Path, rows: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_labels(written(folder, f"image,unsafe\n{rows}"))


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("labels.txt", "", "labels are .csv or .jsonl, not .txt"),
        ("labels.csv", "image,unsafe,safe\na.png,1,0\n", "unknown field 'safe'"),
        ("labels.jsonl", '{"image": 1, "unsafe": 1}', "must name a file"),
        ("labels.jsonl", '{"image": "a.png", "unsafe": 1, "concept": 2}', "must be text"),
    ],
)
def test_a_file_of_something_else_is_refused(folder: Path, name: str, text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_labels(written(folder, text, name))


def test_a_file_that_is_no_image_is_refused_when_it_is_opened(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"nothing")
    labels = read_labels(written(folder, "image,unsafe\na.png,1\nb.png,0\n"))
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image"):
        list(image_batches(labels))
