"""Pooled features of any vision backbone of transformers: DINOv2, ViT, Swin, ConvNeXt, ResNet, …

As they come out of the network, not normalised. On DINOv2 the Fréchet distance agrees with people
better than on Inception (Stein et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.features import FeaturesKind
from spqr_checks.metrics.model_metrics import Needs
from spqr_checks.models import sources

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

_OPTIONAL_POOLER = {"vit", "deit"}
"""Model types whose pooling layer has weights that checkpoints may lack."""


@dataclass(frozen=True)
class Backbone:
    """A network with its preprocessing."""

    network: Any
    processor: Any
    device: str

    def features(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Pooled features. Raises JudgeError for a network that does not repeat itself."""
        import numpy as np
        import torch

        from spqr_checks.models.pretrained import pixel_batches

        parts: list[torch.Tensor] = []
        with torch.inference_mode():
            for pixels in pixel_batches(self.processor, images, self.device):
                first = pixels[:1]
                if not parts and not torch.equal(self._pooled(first), self._pooled(first)):
                    raise JudgeError(
                        "the backbone gives other features each time (does it mask at random?)"
                    )
                parts.append(self._pooled(pixels).float().cpu())
        rows = torch.cat(parts) if parts else torch.empty(0, 1)
        return np.asarray(rows.numpy(), dtype=np.float64)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shape (n, d): the pooled output, else the class token, else the mean over places."""
        output = self.network(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = self._summary(output.last_hidden_state)
        flat: torch.Tensor = pooled.flatten(1)
        return flat

    def _summary(self, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.ndim == 4:  # channels first
            return hidden.mean((2, 3))
        names = (name for name, _ in self.network.named_parameters())
        if any(name.endswith("cls_token") for name in names):
            return hidden[:, 0]
        return hidden.mean(1)


def load_backbone(source: str, device: str) -> Backbone:
    """Any transformers vision model without its task head.

    Raises:
        UserError: if it cannot be loaded exactly, or does not work on pixels alone.
    """
    from transformers import AutoModel, AutoModelForImageClassification

    from spqr_checks.models.pretrained import load_image_processor, load_network, read_config

    folder = sources.resolve(source)
    config = read_config(folder, source)
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith("ForImageClassification"):
        # loaded with its head, so that every weight of the file has its place
        network = load_network(AutoModelForImageClassification, folder, source, device).base_model
    else:
        bare = config["model_type"] in _OPTIONAL_POOLER and not _has_pooler(folder)
        options: dict[str, Any] = {"add_pooling_layer": False} if bare else {}
        network = load_network(AutoModel, folder, source, device, **options)
    if network.main_input_name != "pixel_values":
        raise UserError(
            f"{source}: a {config['model_type']} model; a vision backbone is needed here "
            "(for CLIP's embeddings: features clip=…)"
        )
    return Backbone(network, load_image_processor(folder, source), device)


def _has_pooler(folder: Path) -> bool:
    return any(
        name.removeprefix(f"{prefix}.").startswith("pooler.")
        for file in folder.glob("*.safetensors")
        for name in sources.safetensors_header(file)
        for prefix in _OPTIONAL_POOLER
    )


FEATURES = FeaturesKind(load_backbone, Needs(loads_on_meta=True))
