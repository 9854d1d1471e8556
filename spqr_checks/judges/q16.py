"""Q16: CLIP chooses between two tuned prompts, "inappropriate" or not.

Schramowski et al. 2022 (FAccT, https://dl.acm.org/doi/10.1145/3531146.3533192) and their code,
github.com/ml-research/Q16: the softmax over 100 × cosine of image and prompt; the second prompt is
the inappropriate one; by default with CLIP ViT-L/14. It answers for the whole image.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest
from spqr_checks.models import sources

TENSOR = "prompts"
"""Name of the tensor in the file: floating point, shape (2, d); row 1 is inappropriate."""
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
    path = Path(source).expanduser()
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


def _contents(source: str, options: Options) -> dict[str, Json]:
    return {
        "prompts": sources.source_recipe(str(prompts_file(source))),
        "clip": sources.source_recipe(options.clip),
    }


def _load(request: JudgeRequest) -> Judge:
    from spqr_checks.judges.backends.tuned_prompts import load_tuned_prompts

    options = request.options
    assert isinstance(options, Options)
    return load_tuned_prompts(prompts_file(request.source), TENSOR, options.clip, request)


JUDGE = JudgeKind(Options, _load, contents=_contents)
