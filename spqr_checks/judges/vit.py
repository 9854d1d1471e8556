"""A classifier of safe and unsafe images, such as Falconsai/nsfw_image_detection.

It answers for the whole image: every concept gets the probability of its unsafe labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest
from spqr_checks.judges.classifier import Labels, load_classifier, refuse_labels


class Options(JudgeOptions):
    """Which labels mean unsafe, in upper or lower case; those of the default that there are."""

    unsafe_labels: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)
    ] = ("nsfw", "unsafe")


def unsafe_indices(names: Mapping[int, str], options: Options, source: str) -> list[int]:
    """Indices of the labels that mean unsafe.

    Raises:
        UserError: if there is none, or a label given by the user is not there.
    """
    wanted = {label.casefold() for label in options.unsafe_labels}
    found = [index for index, name in names.items() if name.casefold() in wanted]
    absent = wanted - {name.casefold() for name in names.values()}
    if not found or (absent and "unsafe_labels" in options.model_fields_set):
        some = ", ".join(list(names.values())[:5])
        raise UserError(
            f"{source}: no label {' or '.join(map(repr, sorted(absent)))}; its {len(names)} labels "
            f"begin {some}.\nSay which of them mean unsafe: option unsafe_labels of judge 'vit'."
        )
    return found


def _labels_in(
    source: str, options: Options, concepts: Sequence[str], names: Mapping[int, str]
) -> Labels:
    return dict.fromkeys(concepts, unsafe_indices(names, options, source))


def _load(request: JudgeRequest) -> Judge:
    assert isinstance(request.options, Options)
    labels_in = partial(_labels_in, request.source, request.options, request.concepts)
    return load_classifier(request, labels_in)


def _knows(source: str, options: Options, concepts: Sequence[str]) -> None:
    refuse_labels(source, partial(_labels_in, source, options, concepts))


JUDGE = JudgeKind(
    Options, _load, architecture="ForImageClassification", knows=_knows, loads_on_meta=True
)
