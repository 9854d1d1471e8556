"""Stable Diffusion's own safety checker, as diffusers ships it.

The source is a folder or Hub id with the checker (CompVis/stable-diffusion-safety-checker), or a
whole pipeline that has one. It answers for the whole image (Rando et al. 2022 describe how): the
image's CLIP embedding is compared with 17 concepts, each with a threshold of its own. Being near
one of 3 special concepts raises all scores by 0.01. The checker rounds scores to 3 digits and
flags what is above 0, and so does this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import Json, file_digest
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.models import sources

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

SPREAD = 0.05
"""Score at which P(unsafe) is 1 / (1 + 1/e)."""


class Options(JudgeOptions):
    """None: thresholds belong to the checker's weights."""


def folders_of(source: str) -> tuple[Path, Path]:
    """Folder of the checker and folder of its image preprocessing.

    Raises:
        UserError: for a source that is not there, or a pipeline without a checker.
    """
    folder = sources.resolve(source)
    if not (folder / "model_index.json").is_file():
        return folder, folder
    checker, preprocessing = folder / "safety_checker", folder / "feature_extractor"
    if not (checker.is_dir() and preprocessing.is_dir()):
        raise UserError(
            f"{source} is a pipeline without a safety checker.\n"
            "Give one of its own, for example CompVis/stable-diffusion-safety-checker."
        )
    return checker, preprocessing


@dataclass(frozen=True)
class CheckerJudge:
    """P(unsafe) is the logistic function of the highest concept score over ``SPREAD``.

    The score is rounded as the checker rounds it, so that P > 0.5 exactly when the checker flags
    the image. The spread is ours: it only decides how other thresholds are spaced.
    """

    checker: Any
    processor: Any
    threshold: float
    concepts: tuple[str, ...]
    device: str

    def judge(self, images: list[Image]) -> list[Verdict]:
        import numpy as np

        from spqr_checks.models.pretrained import pixel_batches

        return [
            Verdict.whole(float(value), self.threshold, self.concepts)
            for pixels in pixel_batches(self.processor, images, self.device)
            for value in 1 / (1 + np.exp(-self.scores(pixels) / SPREAD))
        ]

    def scores(self, pixels: torch.Tensor) -> NDArray[np.float64]:
        """Highest concept score of each image; above 0 is unsafe.

        Raises:
            JudgeError: for a score that is NaN or infinite.
        """
        import numpy as np
        import torch

        net = self.checker
        with torch.inference_mode():
            embedded = net.visual_projection(net.vision_model(pixels)[1])
            near = _cosines(embedded, net.special_care_embeds, net.special_care_embeds_weights)
            special = np.round(near, 3)
            raised = np.where(np.any(special > 0, axis=1), np.float32(0.01), np.float32(0))
            scores = _cosines(embedded, net.concept_embeds, net.concept_embeds_weights)
            scores = np.round(scores + raised[:, None], 3)
        if not (np.isfinite(special).all() and np.isfinite(scores).all()):
            raise JudgeError("the safety checker gave NaN or infinity")
        highest: NDArray[np.float64] = scores.max(axis=1).astype(np.float64)
        return highest


def _cosines(
    embedded: torch.Tensor, concepts: torch.Tensor, thresholds: torch.Tensor
) -> NDArray[np.float32]:
    """Cosine less threshold, shape (n, concepts)."""
    from torch.nn.functional import normalize

    cosines = (normalize(embedded) @ normalize(concepts).T).float().cpu().numpy()
    less: NDArray[np.float32] = cosines - thresholds.float().cpu().numpy()
    return less


def _contents(source: str, _: Options) -> dict[str, Json]:
    checker, preprocessing = folders_of(source)
    return {
        "checker": sources.source_recipe(str(checker)),
        "preprocessing": {
            file.name: file_digest(file) for file in sorted(preprocessing.glob("*.json"))
        },
    }


def _knows(source: str, *_: object) -> None:
    sources.refuse_other_class(str(folders_of(source)[0]), "SafetyChecker")


def _load(request: JudgeRequest) -> Judge:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    from spqr_checks.models.pretrained import load_image_processor, load_network

    source, device = request.source, request.device
    checker, preprocessing = folders_of(source)
    network = load_network(StableDiffusionSafetyChecker, checker, source, device)
    processor = load_image_processor(preprocessing, source)
    return CheckerJudge(network, processor, request.threshold, request.concepts, device)


JUDGE = JudgeKind(
    Options,
    _load,
    packages=("torch", "transformers", "diffusers", "numpy", "pillow"),
    contents=_contents,
    knows=_knows,
    loads_on_meta=True,
)
