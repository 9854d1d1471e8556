"""The one pipeline that a process holds on its device; it becomes one state after another.

A state change moves what differs. Adapters are taken off, a network that was changed is read again
from its safetensors, and all others stay where they are: text encoders, autoencoder and tokenizer
between the states of one base, and whatever has the same files in a candidate's own pipeline. What
comes out is bit for bit what loading it anew gives. Heavy inside.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spqr_checks.models.sources import source_recipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from spqr_checks.models.weights import Seen

    Mark = dict[str, Seen]


class Resident:
    """Holds at most one pipeline.

    Args:
        dtype, device: of its weights.
    """

    def __init__(self, dtype: str, device: str) -> None:
        self._dtype, self.device = dtype, device
        self.drop()

    def drop(self) -> None:
        """Frees the pipeline and its memory on the device."""
        self._pipe: DiffusionPipeline | None = None
        self._source = self._key = ""
        self._loaded: Mark = {}
        self._made: Mark = {}
        self._config: dict[str, Any] = {}
        gc.collect()
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def become(
        self, key: str, source: str, change: Callable[[DiffusionPipeline], None]
    ) -> DiffusionPipeline:
        """The pipeline of a source after a change, as if it were loaded and changed now.

        Whoever is given it may put adapters on it and write to its weights; the next state finds
        out what there is to take back.

        Args:
            key: of what comes out; under an equal one the change is not made again.

        Raises:
            UserError: for a source that cannot be loaded, and what the change raises.
        """
        try:
            if self._pipe is not None and self._key == key:
                _take_off_adapters(self._pipe)
                if all(seen.still_is(getattr(self._pipe, n)) for n, seen in self._made.items()):
                    return self._pipe
            self._key = ""
            pipe = self._fresh(source)
            change(pipe)
        except BaseException:
            self.drop()
            raise
        self._key, self._made = key, _mark(pipe)
        return pipe

    def _fresh(self, source: str) -> DiffusionPipeline:
        """As `load_pipeline` gives it."""
        from spqr_checks.models.pipelines import load_component, load_pipeline

        self._made = {}
        if self._pipe is not None and source == self._source:
            pipe = self._pipe
            _take_off_adapters(pipe)
            _take_off_extras(pipe, self._config)
            changed = [n for n, seen in self._loaded.items() if not seen.still_is(getattr(pipe, n))]
            for name in changed:
                del self._loaded[name]
                pipe.register_modules(**{name: None})  # room for the next
                network = load_component(source, name, self._dtype).to(self.device)
                pipe.register_modules(**{name: network})
        else:
            kept = self._shared_with(source)
            self.drop()
            pipe = load_pipeline(source, self._dtype, self.device, kept)
        self._pipe, self._source, self._loaded = pipe, source, _mark(pipe)
        self._config = _extras(pipe)
        return pipe

    def _shared_with(self, source: str) -> dict[str, nn.Module]:
        """Networks of the pipeline that another source has too, by their files."""
        if self._pipe is None:
            return {}
        _take_off_adapters(self._pipe)
        ours, theirs = _files(self._source), _files(source)
        return {
            name: getattr(self._pipe, name)
            for name, seen in self._loaded.items()
            if ours[name] == theirs.get(name) and seen.still_is(getattr(self._pipe, name))
        }


def _mark(pipe: DiffusionPipeline) -> Mark:
    from spqr_checks.models.weights import Seen, networks

    return {name: Seen.of(part) for name, part in networks(pipe).items()}


def _files(source: str) -> dict[str, dict[str, Any]]:
    """Digests of a pipeline's files, by component."""
    found: dict[str, dict[str, Any]] = {}
    files: Any = source_recipe(source)["files"]
    for path, content in files.items():
        component, _, name = path.partition("/")
        found.setdefault(component, {})[name] = content
    return found


def _take_off_adapters(pipe: DiffusionPipeline) -> None:
    from spqr_checks.models.lora_layers import attached_adapters, discard
    from spqr_checks.models.weights import networks

    for network in networks(pipe).values():
        for name in attached_adapters(network):
            discard(network, name)


_EXTRAS = ("safety_checker", "feature_extractor")


def _extras(pipe: DiffusionPipeline) -> dict[str, Any]:
    """What a candidate may bring besides weights, as the pipeline has it."""
    found = {name: getattr(pipe, name) for name in _EXTRAS if hasattr(pipe, name)}
    return found | {"requires_safety_checker": pipe.config.get("requires_safety_checker")}


def _take_off_extras(pipe: DiffusionPipeline, before: Mapping[str, Any]) -> None:
    from spqr_checks.generation.guidance.base import detach_guidance

    detach_guidance(pipe)
    pipe.register_modules(**{name: before[name] for name in _EXTRAS if name in before})
    if "requires_safety_checker" in pipe.config:
        pipe.register_to_config(requires_safety_checker=before["requires_safety_checker"])
