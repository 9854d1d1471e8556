"""Q16: CLIP chooses between two tuned prompts, "inappropriate" or not.

Schramowski et al. 2022 (FAccT, https://dl.acm.org/doi/10.1145/3531146.3533192) and their code,
github.com/ml-research/Q16: the softmax over 100 × cosine of image and prompt; the second prompt is
the inappropriate one; by default with CLIP ViT-L/14. It answers for the whole image.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.models import sources
from spqr_checks.user_files import path_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from spqr_checks.metrics.clip import Clip

TENSOR = "prompts"
"""Name of the tensor in the file: floating point, shape (2, d); row 1 is inappropriate."""
SCALE = 100.0
"""Factor from cosine to logit in the authors' code; CLIP was trained to the same."""
_PICKLED = {".p", ".pkl", ".pickle", *sources.PICKLED}


class Options(JudgeOptions):
    """The CLIP model that the prompts were tuned for."""

    # its contents are in the recipe, so its place is not
    clip: str = Field(default="openai/clip-vit-large-patch14", exclude=True)


def prompts_file(source: str) -> Path:
    """The safetensors file with the two prompts.

    Raises:
        UserError: for anything else; for the published pickle with the command that converts it.
    """
    path = path_of(source)
    if path.suffix.lower() in _PICKLED:
        raise UserError(
            f"{source} is a pickle, which can run code when it is opened. Convert it:\n"
            f"{conversion(path)}"
        )
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise UserError(f"judge 'q16': {source} is no .safetensors file with the tuned prompts")
    header = sources.safetensors_header(path)
    dtype, shape = header.get(TENSOR, ("", ()))
    if set(header) != {TENSOR} or len(shape) != 2 or shape[0] != 2 or not dtype.startswith("F"):
        raise UserError(
            f"judge 'q16': {source} holds {', '.join(sorted(header))}; it must hold one tensor "
            f"{TENSOR!r} of floating point and shape (2, d), the inappropriate prompt second"
        )
    return path


def conversion(path: Path) -> str:
    """A shell command that reads the array out of Q16's ``prompts.p`` without unpickling it.

    The pickle is one little-endian float16 array of two rows; ``pickletools`` lists its parts and
    runs nothing.
    """
    code = (
        "import pickletools as p, numpy as n, safetensors.numpy as s; "
        f"b = max((a for _, a, _ in p.genops(open({str(path)!r}, 'rb')) if isinstance(a, bytes)),"
        " key=len); "
        f"s.save_file({{{TENSOR!r}: n.frombuffer(b, '<f2').reshape(2, -1)}}, "
        f"{str(path.with_suffix('.safetensors'))!r})"
    )
    return f"python -c {shlex.quote(code)}"


@dataclass(frozen=True)
class TunedPromptsJudge:
    """P(inappropriate) = softmax(100 × cosines)[1]; prompts are unit rows, shape (2, d).

    The authors compute in float16, this in float32 and the softmax in float64.
    """

    clip: Clip
    prompts: torch.Tensor
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image]) -> list[Verdict]:
        cosines = self.clip.embed_images(images).double() @ self.prompts.T
        inappropriate: list[float] = (SCALE * cosines).softmax(-1)[:, 1].tolist()
        return [Verdict.whole(value, self.threshold, self.concepts) for value in inappropriate]


def _contents(source: str, options: Options) -> dict[str, Json]:
    return {
        "prompts": sources.source_recipe(str(prompts_file(source))),
        "clip": sources.source_recipe(options.clip),
    }


def _load(request: JudgeRequest) -> Judge:
    from safetensors.torch import load_file

    from spqr_checks.metrics.clip import load_clip

    options, path = request.options, prompts_file(request.source)
    assert isinstance(options, Options)
    clip = load_clip(options.clip, request.device)
    raw = load_file(path)[TENSOR].double()
    if raw.shape[1] != clip.width:
        raise UserError(
            f"{path}: prompts of width {raw.shape[1]}, but {options.clip} embeds in {clip.width} "
            "dimensions; set option clip of judge 'q16' to the model they were tuned for"
        )
    prompts = raw / raw.norm(dim=-1, keepdim=True)
    if not prompts.isfinite().all():
        raise UserError(f"{path}: a prompt is zero, NaN or infinite")
    return TunedPromptsJudge(clip, prompts, request.threshold, request.concepts)


JUDGE = JudgeKind(Options, _load, contents=_contents, loads_on_meta=True)
