"""Fine-tuning of a pipeline that carries guidance: the bare network is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from tunings import Snapshot, Tuned, files, profile

from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.trainer import apply_tuning, finetune
from spqr_checks.generation.guidance.base import Guidance, attach_guidance, guidance_of
from spqr_checks.generation.guidance.safe_latent_blend import SafeLatentBlendGuidance
from spqr_checks.generation.guidance.sld import SldGuidance

SLD = SldGuidance(
    safety_prompt="red triangle",
    warmup=0,
    scale=5000,
    threshold=1,
    momentum_scale=0.5,
    momentum_beta=0.7,
)
BLEND = SafeLatentBlendGuidance(
    weight=1, tau=0, rank=2, threshold=None, harmful=("a red star",), anchors=("a blue star",)
)


@pytest.mark.parametrize("guidance", [SLD, BLEND], ids=["sld", "safe-latent-blend"])
def test_guidance_leaves_no_trace_in_the_training(
    tuned: Tuned,
    pipe: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    guidance: Guidance,
) -> None:
    attach_guidance(pipe, guidance)
    before = Snapshot.of(pipe)
    finetune(pipe, scenes, profile(tuned.kind), 3, tmp_path)
    assert files(tmp_path) == files(tuned.folder)
    assert Snapshot.of(pipe).equals(before)
    apply_tuning(pipe, tmp_path)
    assert guidance_of(pipe) == guidance
