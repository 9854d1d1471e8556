"""Half precision, which `bf16` and `fp16` share: all weights in 16 bits, and computed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spqr_checks.adaptations.kind import AdaptationKind, Given

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Half(AdaptationKind):
    """Casts every network of a pipeline, as ``DiffusionPipeline.to(dtype)`` does."""

    slows: ClassVar[bool] = True
    dtype: ClassVar[Literal["bfloat16", "float16"]]

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from spqr_checks.models.pipelines import dtype_named
        from spqr_checks.models.weights import networks, refuse_non_finite

        for name, network in networks(pipe).items():
            network.to(dtype_named(self.dtype))
            for key, tensor in network.state_dict().items():
                refuse_non_finite(tensor, f"{name}.{key}", f"adaptation {self.dtype}")
        return pipe
