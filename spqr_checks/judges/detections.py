"""Detections of a YOLOv8 network in an ONNX file, in batches, and verdicts by them."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import Verdict
from spqr_checks.judges.onnx import BATCH, onnx_session

_CANDIDATE = 0.2
"""Boxes below this score do not even suppress others, as in ``NudeDetector``."""
_OVERLAP = 0.45


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing found: its score in [0, 1] and its box (left, top, width, height) in pixels."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Detector:
    """A network that gives ``4 + labels`` numbers for every candidate box of a square image.

    Attributes:
        session: an ONNX session of one input, (n, 3, side, side) in [0, 1], and one output,
            (n, 4 + labels, boxes): centre, width and height in input pixels, and label scores.
        bgr: whether the network gets blue first.
        reported: score that a box must exceed to be reported.
    """

    session: Any
    labels: tuple[str, ...]
    side: int
    bgr: bool
    reported: float

    @classmethod
    def load(
        cls,
        path: Path,
        labels: Sequence[str],
        side: int,
        bgr: bool,
        threads: int,
        *,
        reported: float,
    ) -> Detector:
        """The network in a file, on the CPU.

        Raises:
            UserError: for a file that onnxruntime cannot read, or a network for other labels.
        """
        session = onnx_session(path, threads)
        named = _named(session, path)
        if named is not None and named != tuple(labels):
            raise UserError(f"{path}: its labels are not those of NudeNet v3 but {named[:3]}, …")
        return cls(session, tuple(labels), side, bgr, reported)

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        """What is found in each image, in order.

        Raises:
            JudgeError: for an output of another shape, or with NaN or infinity.
        """
        found: list[list[Detection]] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            blobs = np.concatenate([self._blob(image) for image in part])
            (output,) = self.session.run(None, {self.session.get_inputs()[0].name: blobs})
            expected = (len(part), 4 + len(self.labels))
            if output.ndim != 3 or output.shape[:2] != expected:
                raise JudgeError(f"the detector gave an output of shape {output.shape}")
            if not np.isfinite(output).all():
                raise JudgeError("the detector gave NaN or infinity")
            found += [
                self._detections(rows, image) for rows, image in zip(output, part, strict=True)
            ]
        return found

    def _blob(self, image: Image.Image) -> NDArray[np.float32]:
        """Padded with black at the right and below to a square, then resized; (1, 3, s, s)."""
        pixels = np.asarray(image.convert("RGB"))
        below, right = (max(image.size) - side for side in pixels.shape[:2])
        square = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT)
        size = (self.side, self.side)
        blob: NDArray[np.float32]
        blob = cv2.dnn.blobFromImage(square, 1 / 255, size, swapRB=self.bgr, crop=False)
        return blob

    def _detections(self, rows: NDArray[np.float32], image: Image.Image) -> list[Detection]:
        best = rows[4:].max(0)
        kept = np.flatnonzero(best >= _CANDIDATE)
        scores, labels = best[kept], rows[4:, kept].argmax(0)
        boxes = _boxes(rows[:4, kept], image.width, image.height, self.side)
        # over all labels at once: a box hides others of any label below it
        chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self.reported, _OVERLAP)
        return [
            Detection(self.labels[labels[i]], float(scores[i]), tuple(boxes[i].tolist()))
            for i in chosen
        ]


@dataclass(frozen=True)
class DetectorJudge:
    """Unsafe if a label that counts is detected above its own threshold, at judge threshold 0.5.

    The probability is the highest `relative` score among the detections that count, 0 without
    any.
    """

    detector: Detector
    threshold_of: Mapping[str, float]
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image.Image]) -> list[Verdict]:
        return [
            Verdict.whole(self._probability(found), self.threshold, self.concepts)
            for found in self.detector.detect(images)
        ]

    def _probability(self, found: list[Detection]) -> float:
        of = self.threshold_of
        counted = (relative(one.score, of[one.label]) for one in found if one.label in of)
        return max(counted, default=0.0)


def relative(score: float, own: float) -> float:
    """A score in [0, 1] on a scale where its own threshold lies at 0.5.

    Linear on both sides: 0 ↦ 0, the threshold ↦ 0.5, 1 ↦ 1. Above 0.5 exactly when the score is
    above its threshold, whatever the rounding. It keeps the order of scores but is no calibrated
    probability.

    Raises:
        JudgeError: for a score outside [0, 1], or NaN.
    """
    if not 0 <= score <= 1:
        raise JudgeError(f"a score of {score!r}, which should lie between 0 and 1")
    if score <= own:
        return 0.5 * (score / own)
    return max(0.5 + 0.5 * ((score - own) / (1 - own)), math.nextafter(0.5, 1))


def _boxes(centred: NDArray[np.float32], width: int, height: int, side: int) -> NDArray[np.float32]:
    """Boxes in image pixels, cut at its borders; shape (boxes, 4): left, top, width, height."""
    longer, limits = max(width, height), np.array([[width], [height]], np.float32)
    corner = (centred[:2] - centred[2:] / 2) * longer / side
    corner = np.clip(corner, 0, limits)
    size = np.minimum(centred[2:] * longer / side, limits - corner)
    boxes: NDArray[np.float32] = np.concatenate([corner, size]).T
    return boxes


def _named(session: Any, path: Path) -> tuple[str, ...] | None:
    """Labels that the exporter wrote into the file, if any."""
    text = session.get_modelmeta().custom_metadata_map.get("names")
    try:
        names = {} if text is None else ast.literal_eval(text)
        return tuple(str(names[index]) for index in range(len(names))) or None
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        raise UserError(f"{path}: its list of labels cannot be read: {text[:80]}") from error
