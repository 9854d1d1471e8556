"""Stable Diffusion's own safety checker, as diffusers ships it.

The source is a folder or Hub id with the checker (CompVis/stable-diffusion-safety-checker), or a
whole pipeline that has one. It answers for the whole image.
"""

from __future__ import annotations

from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, file_digest
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest
from spqr_checks.models import sources


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


def _contents(source: str, _: Options) -> dict[str, Json]:
    checker, preprocessing = folders_of(source)
    return {
        "checker": sources.source_recipe(str(checker)),
        "preprocessing": {
            file.name: file_digest(file) for file in sorted(preprocessing.glob("*.json"))
        },
    }


def _load(request: JudgeRequest) -> Judge:
    from spqr_checks.judges.backends.checker import load_checker

    checker, preprocessing = folders_of(request.source)
    return load_checker(checker, preprocessing, request)


JUDGE = JudgeKind(
    Options,
    _load,
    packages=("torch", "transformers", "diffusers", "numpy", "pillow"),
    contents=_contents,
)
