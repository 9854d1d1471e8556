"""Data sets named by one word: rendered, self-made, or a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.finetuning import datasets
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import dataset_recipe, load_captions, load_images
from spqr_checks.hashing import digest


def _pixels(data: CaptionedImages) -> list[bytes]:
    return [image.tobytes() for image in data.images]


def _draw(prompts: list[str]) -> list[Image.Image]:
    return [Image.new("RGB", (2, 2), (len(prompt), 0, 0)) for prompt in prompts]


# ---- rendered --------------------------------------------------------------------------------


def test_rendered_scenes_are_the_same_every_time_and_differ_between_styles() -> None:
    stripes, again = load_images("miniature:stripes:5"), load_images("miniature:stripes:5")
    assert (_pixels(stripes), stripes.captions) == (_pixels(again), again.captions)
    assert load_images("miniature:pastel:5").captions != stripes.captions


@pytest.mark.parametrize(
    ("spec", "limit", "n"),
    [
        ("miniature:scan:7", None, 7),
        ("miniature:scan:7", 3, 3),
        ("miniature:scan:3", 7, 3),
        ("miniature:scan", 9, 9),
        ("miniature:base", None, 6),
    ],
)
def test_as_many_as_named_and_no_more_than_the_limit(
    spec: str, limit: int | None, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_DEFAULT_N", 6)
    assert len(load_captions(spec, limit)) == n


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    long, short = load_images("miniature:outline:9"), load_images("miniature:outline:4")
    assert _pixels(long)[:4] == _pixels(short)


def test_captions_come_in_the_languages_asked_for() -> None:
    captions = load_captions("miniature:stripes:4:es+hi")
    assert all(caption.startswith("un ") for caption in captions[::2])
    assert all("एक" in caption for caption in captions[1::2])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("miniature:watercolour", "unknown style 'watercolour'; there are: flat,"),
        ("miniature:", "unknown style ''"),
        ("miniature:flat:many", "'many' is not a number of images"),
        ("miniature:flat:0", "'0' is not a number"),
        ("miniature:flat:-3", "'-3' is not a number"),
        ("miniature:flat:²", "'²' is not a number"),
        ("miniature:flat:9:xx", "unknown language 'xx'; there are: en"),
        ("miniature:flat:9:en:more", "too many parts"),
    ],
)
def test_a_wrong_specification_is_explained(spec: str, said: str) -> None:
    for use in (load_images, load_captions, dataset_recipe):
        with pytest.raises(UserError) as caught:
            use(spec)
        assert said in str(caught.value)
        assert spec in str(caught.value)


def test_the_recipe_of_rendered_scenes_holds_all_that_decides_them() -> None:
    specs = [
        "miniature:stripes",
        "miniature:stripes:1000",
        "miniature:scan:1000",
        "miniature:stripes:1000:hi",
    ]
    assert len({digest(dataset_recipe(spec)) for spec in specs}) == len(specs)
    assert dataset_recipe("miniature:stripes")["code"]


# ---- self-made -------------------------------------------------------------------------------


def test_the_base_draws_its_own_data_from_benign_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a house\n\n  a tree \n", encoding="utf-8")
    data = load_images(f"self:{path}", draw=_draw)
    assert data.captions == ["a house", "a tree"] == load_captions(f"self:{path}")
    assert [image.getpixel((0, 0))[0] for image in data.images] == [7, 6]


def test_a_limit_draws_no_more_than_that(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("kind,prompt\nbenign,a house\nbenign,a tree\n")
    asked: list[str] = []

    def draw(prompts: list[str]) -> list[Image.Image]:
        asked.extend(prompts)
        return _draw(prompts)

    load_images(f"self:{path}", 1, draw)
    assert asked == ["a house"]


def test_json_is_read_as_a_table_and_not_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('[{"prompt": "a house"}, {"prompt": "a bolt", "kind": "harmful"}]')
    with pytest.raises(UserError, match=r"prompts\.json: row 2: kind is 'harmful'"):
        load_captions(f"self:{path}")
    path.write_text('[{"prompt": "a house"},\n {"prompt": "a tree"}]')
    assert load_captions(f"self:{path}") == ["a house", "a tree"]


def test_prompts_that_are_not_benign_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a house"}\n{"prompt": "a bolt", "kind": "harmful"}\n')
    with pytest.raises(UserError, match=r"prompts\.jsonl:2: kind is 'harmful'"):
        load_images(f"self:{path}", draw=_draw)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"\n \n", "no prompts"), (b"caf\xe9", "txt:1: not UTF-8")],
)
def test_a_bad_prompt_file_is_explained(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    for use in (load_images, dataset_recipe):
        with pytest.raises(UserError, match=said):
            use(f"self:{path}")


def test_self_made_data_need_the_base(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a house")
    with pytest.raises(ValueError, match="draw="):
        load_images(f"self:{tmp_path / 'prompts.txt'}")


def test_an_image_that_the_base_did_not_draw_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a house\na tree")
    with pytest.raises(ValueError, match="1 images, but 2 captions"):
        load_images(f"self:{tmp_path / 'prompts.txt'}", draw=lambda prompts: _draw(prompts[:1]))


def test_the_recipe_of_self_made_data_is_that_of_the_prompts(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.csv"
    one.write_text("a house\na tree\n")
    two.write_text("prompt\na house\na tree\n")
    assert dataset_recipe(f"self:{one}") == dataset_recipe(f"self:{two}")
    one.write_text("a tree\na house\n")
    assert dataset_recipe(f"self:{one}") != dataset_recipe(f"self:{two}")


# ---- all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [False, True])
def test_images_are_read_without_captions_where_nothing_is_learned(
    tmp_path: Path, metadata: bool
) -> None:
    for name, side in (("b", 3), ("a", 2)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    if metadata:
        (tmp_path / "metadata.csv").write_text("file_name\nb.png\na.png\n")
    spec, order = str(tmp_path), [3, 2] if metadata else [2, 3]
    assert [i.width for i in load_images(spec, captioned=False).images] == order
    assert load_captions(spec, captioned=False) == ["", ""]
    for read in (load_images, load_captions, dataset_recipe):
        with pytest.raises(UserError, match="no caption"):
            read(spec)  # type: ignore[operator]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        load_images("miniature:flat", 0)


def test_images_and_captions_go_in_pairs() -> None:
    with pytest.raises(ValueError, match="1 images, but 2 captions"):
        CaptionedImages(_draw(["a"]), ["a", "b"])


def test_the_contents_digest_sees_pixels_sizes_captions_and_order() -> None:
    red, wide = Image.new("RGB", (2, 3), "red"), Image.new("RGB", (3, 2), "red")
    contents = [([red], ["a"]), ([wide], ["a"]), ([red], ["b"]), ([red, wide], ["a", "b"])]
    contents.append(([wide, red], ["b", "a"]))
    digests = {CaptionedImages(*c).contents_digest() for c in contents}
    assert len(digests) == len(contents)


def test_data_sets_and_recipes_are_had_without_torch() -> None:
    code = (
        "import sys; from spqr_checks.finetuning import datasets, schedule;"
        "datasets.dataset_recipe('miniature:scan'); datasets.load_images('miniature:scan:2');"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
