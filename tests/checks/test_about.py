"""What a verdict is about: these prompts, or prompts like these."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from warm import BASE_SETTINGS, fill

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.checks.stopping import Stopping
from spqr_checks.errors import UserError
from spqr_checks.preflight import preflight
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.settings import Settings, load_settings

LIKE = "prompts-like-these"


def images(prompts: int, seeds: int) -> list[ImageRef]:
    return [
        ImageRef("", f"prompt {i % prompts}", i // prompts, False) for i in range(prompts * seeds)
    ]


def stopping(mode: str, about: str = LIKE, **settings: int) -> Stopping:
    return Stopping(Settings(mode=mode, about=about, **settings), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["fixed", "sequential"])
def test_many_images_of_few_prompts_show_little_about_others(mode: str) -> None:
    shown = images(8, 24)
    never, low, up = [False] * 192, np.full(192, 0.3), np.full(192, 0.31)
    low += np.tile(np.linspace(0, 0.02, 8), 24)
    like, these = (stopping(mode, about) for about in (LIKE, "these-prompts"))
    for found in (like.rate(never, shown, 0.2), like.difference(never, never, shown, 0.2)):
        assert found.verdict(0.05) == "inconclusive"
    for found in (these.rate(never, shown, 0.2), these.difference(never, never, shown, 0.2)):
        assert found.verdict(0.05) == "pass"
    spans = [np.ptp(way.ratio(low, up, shown, 0.9).interval) for way in (like, these)]
    assert spans[0] > 3 * spans[1]


def test_as_many_prompts_as_images_show_as_much() -> None:
    shown, flags = images(192, 1), [i < 10 for i in range(192)]
    like, these = (stopping("fixed", about) for about in (LIKE, "these-prompts"))
    assert like.rate(flags, shown, 0.2).verdict(0.05) == "pass"
    assert like.clustered(shown, flags) == {
        "prompts": 192,
        "effective_n": pytest.approx(191, abs=1),
    }
    assert these.clustered(shown, flags) == {}
    a, b = np.random.default_rng(0).normal(0.3, 0.03, (2, 192))
    one, other = (way.ratio(a, b, shown, 0.9).interval for way in (like, these))
    assert one == pytest.approx(other)


def test_prompts_that_are_drawn_again_divide_the_error_among_looks() -> None:
    once, again = (
        stopping("sequential").rate([False] * 48, images(n, 48 // n), 0.2) for n in (48, 24)
    )
    plain = stopping("sequential", "these-prompts").rate([False] * 48, images(48, 1), 0.2)
    assert once.p_met == pytest.approx(2 * plain.p_met)
    # eight looks: a half for seven
    half = stopping("sequential", "these-prompts").rate([False] * 24, images(24, 1), 0.2)
    assert again.p_met == pytest.approx(14 * half.p_met)
    one_look = stopping("sequential", images=48, max_images=48)
    assert one_look.rate([False] * 48, images(48, 1), 0.2).p_met == pytest.approx(plain.p_met)


@pytest.mark.slow
def test_looks_at_the_same_prompts_again_pass_what_is_at_its_threshold_seldom() -> None:
    rng, looking, passed = np.random.default_rng(1), stopping("sequential"), 0
    for _ in range(300):
        own = rng.beta(0.2 * 7 / 3, 0.8 * 7 / 3, 24)
        flags = (rng.random((8, 24)) < own).ravel().tolist()
        for look in range(1, 9):
            found = looking.rate(flags[: 24 * look], images(24, look), 0.2)
            if found.verdict(0.05) != "inconclusive":
                break
        passed += found.verdict(0.05) == "pass"
    assert passed / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> MeasuringSession:
    return fill(tmp_path_factory.mktemp("like"), about=LIKE)


@pytest.mark.heavy
def test_every_cell_says_what_it_is_about(like: MeasuringSession) -> None:
    for cell in like.run.matrix.cells:
        result = like.measure(cell)
        assert result.details["about"] == LIKE, cell.id
        if cell.check in ("suppression", "drift"):
            prompts = len({image.prompt for image in result.images}) or result.details["prompts"]
            assert prompts <= result.details["prompts"] <= result.details["effective_n"] <= result.n


def test_one_prompt_is_no_sample_of_prompts(tmp_path: Path) -> None:
    given = BASE_SETTINGS | {"store": str(tmp_path), "about": LIKE, "prompts_per_group": 1}
    alone = MeasuringSession(Run.from_settings(load_settings(tmp_path, given)))
    with pytest.raises(UserError, match="has one prompt, which says nothing about prompts like it"):
        preflight(alone.run.settings)
