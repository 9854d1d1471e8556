"""STEREO: both stages' lessons against the authors' arithmetic, and what the search leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from originals import Texts

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.stereo import Robust, robust_target
from spqr_checks.alignment.training.distillation import Lesson
from spqr_checks.models.weights import copy_state

STEREO = method("stereo")
QUICK: dict[str, Any] = {"template": "a {}", "latents": "pool", "pool": 2, "search_steps": 1}
QUICK |= {"inversion_steps": 2, "search_rate": 1e-3, "learning_rate": 1e-3, "batch": 2}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


def test_with_strength_two_the_weights_are_one_and_minus_three() -> None:
    empty, anchor, one, other = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    target = robust_target(empty, anchor, [one, other], 2.0)
    theirs = empty + 1 * (anchor - empty) - 3 * ((one - empty) + (other - empty)) / 2
    torch.testing.assert_close(target, theirs)


def test_drawings_are_stopped_after_their_first_step_and_before_their_last(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    options = STEREO.parse(QUICK | {"latents": "student", "sampling_steps": 4})
    training = Robust(tiny_pipeline, make_request(), options)
    index = torch.zeros(1, dtype=torch.long)
    found = {int(training.noisy(training.harmful[index], index)[1][0]) for _ in range(15)}
    tiny_pipeline.scheduler.set_timesteps(4)
    assert found == set(tiny_pipeline.scheduler.timesteps[1:-1].tolist())


@pytest.mark.heavy
def test_the_lessons_of_both_stages_are_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    texts: Texts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen, before = copy.deepcopy(tiny_pipeline.unet), copy_state(tiny_pipeline)
    request = make_request(harmful=["a red triangle"], anchors=["a blue triangle"])
    seen: list[tuple[bool, Lesson, list[Any]]] = []
    own = Robust.lesson

    def note(self: Robust) -> Lesson:
        lesson, searches = own(self), self.searched is not None
        state = {k: v.clone() for k, v in self.searched[1].state_dict().items()} if searches else {}
        seen.append((searches, lesson, [state, [c.hidden for c in self.learned["all"]]]))
        return lesson

    monkeypatch.setattr(Robust, "lesson", note)
    options = STEREO.parse(QUICK | {"rounds": 2, "tokens": 2, "steps": 6})
    STEREO.align(tiny_pipeline, request, options, tmp_path)
    concept, anchor, empty = (texts([p] * 2) for p in ("a red triangle", "a blue triangle", ""))
    assert [searches for searches, *_ in seen] == [True] * 2 + [False] * 6
    # a later round starts from the UNet that the one before it erased
    first, second = seen[0][2][0], seen[1][2][0]
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert any(not torch.equal(second[name], before[name]) for name in before)
    reference, asked_for = copy.deepcopy(frozen), set()
    for searches, lesson, (state, tokens) in seen:
        x, t, said = lesson.x, lesson.t, lesson.prompts.hidden
        with torch.no_grad():
            if searches:
                reference.load_state_dict(state)
                # e(c) − 1 (e(c) − e("")) is e("") itself
                theirs = reference(x, t, empty).sample
                wanted = tokens[-1].repeat(2, 1, 1) if tokens else concept
                torch.testing.assert_close(said, wanted)
            else:
                everything = [concept, *(token.repeat(2, 1, 1) for token in tokens)]
                e_0, e_a, *e_y = (frozen(x, t, c).sample for c in (empty, anchor, *everything))
                away = sum(e - e_0 for e in e_y) / len(e_y)
                theirs = e_0 + (e_a - e_0) - 3 * away
                (match,) = (k for k, c in enumerate(everything) if torch.allclose(said, c))
                asked_for.add(match)
        torch.testing.assert_close(lesson.target, theirs, atol=1e-4, rtol=1e-3)
    assert len(asked_for) > 1
    changed = {k for k, v in copy_state(tiny_pipeline).items() if not torch.equal(v, before[k])}
    assert changed
    assert not any("attn2" in name for name in changed)


def test_the_second_stage_begins_at_the_original(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    before = copy_state(tiny_pipeline)
    training = Robust(tiny_pipeline, make_request(), STEREO.parse(QUICK | {"rounds": 1}))
    training.started()
    assert len(training.learned["all"]) == 1
    after = copy_state(tiny_pipeline)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(p.requires_grad for p in tiny_pipeline.unet.parameters())
