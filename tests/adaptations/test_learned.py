"""Adaptations that are trained: equal bytes, what they teach, and how the state is asked then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from spqr_checks.adaptations.applying import apply_adaptation
from spqr_checks.adaptations.distilled import Distilled, _consistent
from spqr_checks.adaptations.dreambooth import Dreambooth
from spqr_checks.adaptations.image_to_image import ImageToImage
from spqr_checks.adaptations.inpainting import Inpainting
from spqr_checks.adaptations.kind import AdaptationKind, Given, Lesson, Surroundings
from spqr_checks.adaptations.lora_keep import LoraKeep
from spqr_checks.adaptations.textual_inversion import TextualInversion
from spqr_checks.choices import Profile, Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.generation.sampling import generate
from spqr_checks.models.noise_schedule import noise_schedule
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SAMPLER = Sampler(steps=2, guidance=3.0, batch=2)
LORA = Profile(trains="lora", steps=2, batch=2, learning_rate=1e-2)
PROFILES = {"lite": LORA, "standard": Profile(trains="denoiser")}
RUN = Surroundings(("lite",), PROFILES, {"stripes": "miniature:stripes"}, (0,), SAMPLER)
IMAGES = load_images("miniature:stripes", 3)
LESSON = Lesson(IMAGES, ("a hazard sign", "a red triangle"), SAMPLER, 1)
KINDS: dict[str, Any] = {
    "dreambooth": Dreambooth(prior=4),
    "textual-inversion": TextualInversion(steps=3, batch=2),
    "lora-keep": LoraKeep(share=0.5),
    "distilled": Distilled(steps=2, batch=2, rank=2, grid=4, sampling_steps=2),
}
kinds = pytest.mark.parametrize("kind", [k.within(RUN) for k in KINDS.values()], ids=KINDS)


def drawn(pipe: Any, prompts: list[str], sampler: Sampler = SAMPLER) -> list[bytes]:
    return [image.tobytes() for image in generate(pipe, prompts, [0] * len(prompts), sampler)]


def learned(pipe: Any, kind: AdaptationKind, folder: Path) -> Path:
    folder.mkdir()
    kind.learn(pipe, LESSON, folder)
    return folder


def given(kind: AdaptationKind, entry: Path | None = None) -> Given:
    return Given(entry, None, lambda: IMAGES, kind.sampler(SAMPLER))


@pytest.mark.trains
@kinds
def test_equal_lessons_give_equal_bytes_which_change_the_weights(
    tiny_pipeline_dir: Path, tmp_path: Path, kind: AdaptationKind
) -> None:
    first, second = (
        learned(load_pipeline(str(tiny_pipeline_dir)), kind, tmp_path / name) for name in "ab"
    )
    files = sorted(path.name for path in first.iterdir())
    assert any(name.endswith(".safetensors") for name in files)
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    pipe = load_pipeline(str(tiny_pipeline_dir))
    sampler = kind.sampler(SAMPLER)
    before = drawn(pipe, ["a striped square"], sampler)
    pipe = apply_adaptation(pipe, kind, given(kind, first))  # which refuses what changes nothing
    after = drawn(pipe, ["a striped square"], sampler)
    assert after != before
    assert after == drawn(pipe, ["a striped square"], sampler)


@pytest.mark.trains
def test_an_inverted_word_is_one_vector_that_diffusers_reads(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    kind = TextualInversion(steps=3, batch=2)
    pipe = load_pipeline(str(tiny_pipeline_dir))
    before = pipe.text_encoder.get_input_embeddings().weight.detach().clone()
    unet = copy_state(pipe)
    entry = learned(pipe, kind, tmp_path / "word")
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[:-1], before)  # the other words are as they were
    assert not torch.allclose(table[-1], before.mean(0))
    assert all(torch.equal(weight, unet[name]) for name, weight in copy_state(pipe).items())
    ours = apply_adaptation(load_pipeline(str(tiny_pipeline_dir)), kind, given(kind, entry))
    theirs = load_pipeline(str(tiny_pipeline_dir))
    theirs.load_textual_inversion(str(entry), weight_name="learned_embeds.safetensors")
    # ours is asked with the word by itself
    assert drawn(ours, ["a circle"]) == [
        image.tobytes() for image in _as_if(theirs, "a circle", f"a circle {kind.word}")
    ]


def _as_if(pipe: Any, prompt: str, said: str) -> Any:
    """Images of a text with the latents of another."""
    from spqr_checks.generation.call_inputs import carry_inputs

    carry_inputs(pipe, lambda prompts: {"prompt": [said for _ in prompts]})
    return generate(pipe, [prompt], [0], SAMPLER)


def test_a_word_that_the_model_knows_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.tokenizer.add_tokens(["<learned>"])
    with pytest.raises(UserError, match="the model knows '<learned>' already"):
        TextualInversion(steps=1).learn(tiny_pipeline, LESSON, Path())


def _taught(monkeypatch: pytest.MonkeyPatch, pipe: Any, kind: AdaptationKind) -> CaptionedImages:
    """What a kind hands to the trainer."""
    seen: list[CaptionedImages] = []
    monkeypatch.setattr(trainer, "finetune", lambda pipe, data, *_: seen.append(data))
    kind.learn(pipe, LESSON, Path())
    return seen[0]


def test_dreambooth_sees_its_word_as_often_as_the_model_s_own_images(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _taught(monkeypatch, tiny_pipeline, Dreambooth(prior=6, word="sks").within(RUN))
    own = [caption for caption in data.captions if caption.startswith("sks ")]
    assert sorted(own) == sorted([f"sks {caption}" for caption in IMAGES.captions] * 2)
    prior = data.captions[len(own) :]
    assert prior == IMAGES.captions * 2
    assert data.images[len(own)].tobytes() == drawn(tiny_pipeline, prior[:1])[0]


def test_a_kept_lora_rehearses_the_candidate_s_own_answers(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _taught(monkeypatch, tiny_pipeline, LoraKeep(share=0.4).within(RUN))
    assert data.captions == [*IMAGES.captions, "a hazard sign", "a red triangle"]
    (answer,) = generate(tiny_pipeline, ["a hazard sign"], [0], SAMPLER)
    # drawn in a batch with another, which may change last bits
    assert abs(answer.getpixel((3, 3))[0] - data.images[3].getpixel((3, 3))[0]) <= 1
    with pytest.raises(UserError, match="--spqr-alignment-prompts have none"):
        LoraKeep().within(RUN).learn(tiny_pipeline, Lesson(IMAGES, (), SAMPLER, 1), Path())


def test_what_trains_a_lora_needs_a_profile_that_does() -> None:
    other = Surroundings((), {"standard": PROFILES["standard"]}, RUN.datasets, (0,), SAMPLER)
    with pytest.raises(UserError, match="'dreambooth' trains a LoRA, and no profile does"):
        Dreambooth().within(other)
    with pytest.raises(UserError, match="'distilled' needs images"):
        Distilled().within(Surroundings((), PROFILES, {}, (0,), SAMPLER))


def test_a_consistency_function_is_the_scheduler_s(tiny_pipeline: StableDiffusionPipeline) -> None:
    from diffusers import LCMScheduler

    schedule = noise_schedule(tiny_pipeline)
    generator = torch.Generator().manual_seed(0)
    noisy, predicted = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    lcm = LCMScheduler.from_config(schedule.config, original_inference_steps=20)
    lcm.set_timesteps(2)
    t = lcm.timesteps[:1]
    theirs = lcm.step(predicted, t[0], noisy, generator=generator).denoised
    torch.testing.assert_close(_consistent(schedule, predicted, noisy, t), theirs)
    zero = torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(_consistent(schedule, predicted, noisy, zero), noisy)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [ImageToImage(strength=0.5), Inpainting(part=0.5)])
def test_benign_pictures_decide_what_is_drawn_into_them(
    tiny_pipeline: StableDiffusionPipeline, kind: Any
) -> None:
    kind = kind.within(RUN)
    prompts = ["a red triangle", "a green circle"]
    plain = drawn(tiny_pipeline, prompts)
    pipe = apply_adaptation(tiny_pipeline, kind, given(kind))
    assert type(pipe).__name__.endswith(("Img2ImgPipeline", "InpaintPipeline"))
    first = drawn(pipe, prompts)
    assert first != plain
    assert first == drawn(pipe, prompts)
    other = load_images("miniature:pastel", 3)
    asked = Given(None, None, lambda: other, SAMPLER)
    assert drawn(apply_adaptation(tiny_pipeline, kind, asked), prompts) != first


def test_the_run_s_size_is_that_of_the_pictures() -> None:
    run = Surroundings(
        (), {}, RUN.datasets, (), SAMPLER.model_copy(update={"width": 24, "height": 32})
    )
    kind = ImageToImage().within(run)
    assert (kind.width, kind.height) == (24, 32)
    assert kind.sampler(run.sampler).width is None
