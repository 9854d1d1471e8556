"""The methods on the UNet of Stable Diffusion XL, which also wants pooled embeddings and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_xl import make_xl

from spqr_checks.alignment.esd import Erasure
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sdd import SelfDistillation
from spqr_checks.alignment.training.distillation import StudentTraining
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.generation.sampling import generate
from spqr_checks.models.weights import assert_differs, copy_state

QUICK = {"steps": 2, "batch": 2, "pool": 2, "learning_rate": 1e-3}
SECOND_OF_TWO = 1
"""A seed that stops before the second of two steps."""


@pytest.fixture
def xl_pipeline(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    pipe = make_xl(tiny_pipeline)
    pipe.scheduler = EulerDiscreteScheduler()
    return pipe


def test_prompts_have_pooled_embeddings(xl_pipeline: StableDiffusionXLPipeline) -> None:
    prompts = encode(xl_pipeline, ["a red circle", ""])
    assert prompts.hidden.shape == (2, 32, 32)
    assert prompts.pooled is not None
    assert prompts.pooled.shape == (2, 12)


@pytest.mark.parametrize("made", [Erasure, SelfDistillation])
def test_latents_are_on_the_way_that_the_pipeline_itself_takes(
    xl_pipeline: StableDiffusionXLPipeline,
    make_request: Callable[..., AlignmentRequest],
    made: type[StudentTraining[Any]],
) -> None:
    options = method("esd" if made is Erasure else "sdd").parse({"sampling_steps": 2})
    training = made(xl_pipeline, make_request(), options)  # type: ignore[call-arg,arg-type]
    training.generator.manual_seed(SECOND_OF_TWO)
    x, t = training.draw_partly(training.student, encode(xl_pipeline, ["a moon"]))
    generator = torch.Generator().manual_seed(SECOND_OF_TWO)
    assert int(torch.randint(0, 2, (1,), generator=generator)) == 1
    drawn: list[torch.Tensor] = []

    def note(_pipe: Any, _step: int, _t: Any, given: dict[str, Any]) -> dict[str, Any]:
        drawn.append(given["latents"])
        return given

    xl_pipeline(
        "a moon",
        num_inference_steps=2,
        guidance_scale=3.0,
        latents=torch.randn((1, 4, 8, 8), generator=generator),
        output_type="latent",
        callback_on_step_end=note,
    )
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    assert t == scheduler.timesteps[1]
    torch.testing.assert_close(x, scheduler.scale_model_input(drawn[0], scheduler.timesteps[1]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("esd", {"steps": 2, "batch": 2, "keep_weight": 1, "target": "current"}),
        ("esd", {"steps": 2, "batch": 2, "latents": "pool", "rank": 2, "keep_weight": 1}),
        ("sdd", {"steps": 2, "batch": 2, "keep_weight": 1, "ema": 0}),
        ("ca", {"steps": 2, "batch": 2, "pool": 2, "regularisation": 1}),
    ],
)
def test_variants_of_the_methods_align_it(
    xl_pipeline: StableDiffusionXLPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    before = copy_state(xl_pipeline)
    chosen = method(name)
    chosen.align(xl_pipeline, make_request(), chosen.parse(options), tmp_path)
    assert_differs(xl_pipeline, before)


@pytest.mark.heavy
def test_spm_s_adapters_act_in_it(
    xl_pipeline: StableDiffusionXLPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    sampler = Sampler(steps=2, guidance=2.0, batch=2)
    before = generate(xl_pipeline, ["a red triangle"], [0], sampler)[0]
    spm = method("spm")
    options = QUICK | {"latents": "pool", "warmup": 0, "learning_rate": 0.3}
    spm.align(xl_pipeline, make_request(), spm.parse(options), tmp_path)
    after = generate(xl_pipeline, ["a red triangle"], [0], sampler)[0]
    assert before.tobytes() != after.tobytes()


@pytest.mark.parametrize("name", ["stereo", "advunlearn", "safree", "fmn"])
def test_what_works_inside_one_text_encoder_refuses_it_before_anything_is_drawn(
    xl_pipeline: StableDiffusionXLPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(type(xl_pipeline), "__call__", None)
    chosen = method(name)
    with pytest.raises(UserError, match=rf"{name}.*one CLIP text encoder.*XL") as caught:
        chosen.align(xl_pipeline, make_request(), chosen.parse({}), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
