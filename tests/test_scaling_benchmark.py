"""The scaling benchmark: what is suppressed, what stays free beside it, and what is drawn of it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.miniature.prompt_sets import training_rows
from spqr_checks.miniature.scene import concept_scene
from spqr_checks.miniature.vocabulary import (
    BENIGN_SHAPES,
    COLOURS,
    LABELS,
    label,
    suppressed_by,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import clean
import curves
import world

sys.path.pop(0)


@pytest.fixture(scope="module")
def request_of_all() -> AlignmentRequest:
    rows = [row for row in training_rows() if row["language"] == "en"]
    harmful = [row for row in rows if row["kind"] == "harmful"]
    return world.widened(
        AlignmentRequest(
            concepts=sorted({row["concept"] for row in harmful}),
            harmful=[row["prompt"] for row in harmful],
            anchors=[row["anchor"] for row in harmful],
            keep=[row["prompt"] for row in rows if row["kind"] != "harmful"],
            seed=0,
            threads=1,
            sampler=Sampler(),
            lookalikes=[row["prompt"] for row in rows if row["kind"] == "lookalike"],
            categories=[row["concept"] for row in harmful],
        )
    )


def forbidden(text: str) -> bool:
    """Whether an English caption names an icon, or a colour and shape that are suppressed."""
    return any(concept.name in text for concept in world.WORLD)


def test_twenty_four_concepts_leave_neighbours_free() -> None:
    pairs = [(c.shape, c.colour) for c in world.WORLD]
    assert len(set(pairs)) == len({c.name for c in world.WORLD}) == 24
    assert all(c.name in LABELS for c in world.FURTHER)
    for shape in BENIGN_SHAPES:
        free = {c for c in COLOURS if suppressed_by(shape, c, world.WORLD) is None}
        assert len(free) >= 5
    for colour in COLOURS:
        assert sum(c == colour for _, c in pairs) in (2, 3)


def test_every_concept_has_prompts_of_its_own_whose_anchors_nobody_forbids(
    request_of_all: AlignmentRequest,
) -> None:
    of = request_of_all.categories
    assert set(of) == {concept.name for concept in world.WORLD}
    # yellow, blue and purple are left out on backgrounds that hide them
    assert {of.count(name) for name in of} == {24, 30}
    for harmful, anchor, name in zip(
        request_of_all.harmful, request_of_all.anchors, of, strict=True
    ):
        assert name.split()[-1] in harmful
        assert not forbidden(anchor), anchor


def test_what_is_kept_shows_no_concept_and_has_look_alikes_of_each(
    request_of_all: AlignmentRequest,
) -> None:
    assert not [text for text in request_of_all.keep if forbidden(text)]
    assert set(request_of_all.lookalikes) <= set(request_of_all.keep)
    for concept in world.FURTHER:
        near = list(world.lookalikes(concept))
        # captions leave a colour out now and then
        beside = [text for text in near if concept.shape in text or str(concept.colour) in text]
        assert len(beside) > len(near) * 0.7
        assert set(near) <= set(request_of_all.lookalikes)


@pytest.mark.parametrize("size", [4, 24])
def test_scenes_ask_for_concepts_and_for_what_is_free_whatever_their_number(size: int) -> None:
    asked = clean.scenes(40, world.WORLD[:size], world.WORLD)
    for kind, some in asked.items():
        names = [suppressed_by(s.shape, s.colour, world.WORLD) for s in some]
        if kind in ("icons", "compositions"):
            assert set(names) <= set(world.WORLD[:size])
        else:
            assert set(names) == {None}
    assert len({s.shape + s.colour for s in asked["compositions"]}) == {4: 2, 24: 20}[size]


def test_a_further_concept_is_unsafe_where_it_is_read_and_only_there() -> None:
    concept = world.FURTHER[0]
    scene = concept_scene(random.Random(0), concept)
    drawn = [label(concept.shape, "red"), concept.name, label("square", str(concept.colour))]
    assert clean.hits("compositions", [scene] * 3, drawn, world.WORLD) == 1


def hits(rate: float) -> dict[str, int]:
    kinds = ("icons", "compositions", "other colour", "other shape", "benign")
    return {kind: int(40 * rate) for kind in kinds}


def written(folder: Path, *, options: str = "a") -> Path:
    """Counts of two seeds in which a merge falls behind joint training as concepts are added."""
    rates = {(4, "joint"): 0.25, (4, "co-merge"): 0.25, (24, "joint"): 0.25, (24, "co-merge"): 0.75}
    path = folder / "counts.jsonl"
    of = [
        {"options": options, "n": 40, "seed": seed, "concepts": size, "merge": rule}
        | {"hits": hits(rate)}
        for (size, rule), rate in rates.items()
        for seed in (0, 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in of))
    return path


def test_counts_become_points_with_intervals_and_a_lead(tmp_path: Path) -> None:
    counts, n = curves.read(written(tmp_path))
    drawn = ElementTree.fromstring(curves.picture(counts, n))
    dots = drawn.findall(".//{*}circle")
    assert len(dots) == 2 * 2 * len(curves.PANELS)
    heights = {float(dot.get("cy", "")) for dot in dots}
    assert heights == {curves.HEIGHT * 0.75, curves.HEIGHT * 0.25}
    assert curves.lead(counts, n, 4, "co-merge", "icons").startswith("+0.0 [-13.")
    assert curves.lead(counts, n, 24, "co-merge", "icons").startswith("+50.0 [+35.")
    assert curves.lead(counts, n, 24, "co-merge", "icons").endswith("(+50, +50)")


def test_counts_of_two_settings_are_not_drawn_as_one(tmp_path: Path) -> None:
    other = written(tmp_path, options="b").read_text()
    path = written(tmp_path)
    path.write_text(path.read_text() + other)
    with pytest.raises(SystemExit, match="2 options"):
        curves.read(path)
