"""Model states: their recipes (light) and how their weights are made and put together (heavy)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.alignment import registry as alignment
from spqr_checks.errors import UserError, refuse_all
from spqr_checks.finetuning import datasets
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.concepts import refuse_concepts
from spqr_checks.finetuning.families.registry import FAMILIES
from spqr_checks.generation import sampling as generation
from spqr_checks.hashing import digest, file_digest
from spqr_checks.matrix import BASE, Origin, State, Tuning
from spqr_checks.models import lora_files
from spqr_checks.models.sources import source_recipe
from spqr_checks.runtime import workloads
from spqr_checks.runtime.adapted import Adapted
from spqr_checks.runtime.candidates import Candidate
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.named_models import NamedModels
from spqr_checks.runtime.orders import Order
from spqr_checks.runtime.origins import DESTROYING_SEED, destroy
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.resident import Resident
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.tuned import tune
from spqr_checks.source_code import code_of
from spqr_checks.store.timings import Work

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image
    from torch import Tensor

    from spqr_checks.choices import Sampler

_TRAINER = "spqr_checks.finetuning.trainer"


class States(NamedModels):
    """The states of one run."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._resident: Resident | None = None
        self._composed: tuple[str, DiffusionPipeline] | None = None
        self.adapted = Adapted(run, self)
        self._reference: tuple[str, dict[str, Tensor]] | None = None
        self.tuning_captions = lru_cache(maxsize=None)(self._tuning_captions)
        self.tuning_unit = lru_cache(maxsize=None)(self._tuning_unit)

    @cached_property
    def aligned_recipe(self) -> dict[str, Any]:
        """What decides the candidate's weights. Raises UserError for what contradicts itself."""
        settings, base, folder = self.run.settings, self.base_recipe, self.alignment_folder
        if settings.adapters and (self.method_name is not None or folder is not None):
            raise UserError(
                f"candidate {settings.candidate!r} is an alignment, which takes no adapters; "
                "drop --spqr-adapters"
            )
        if self.method_name is not None:
            return {"base": base, "alignment": self.alignment_unit.recipe}
        if folder is not None:
            files = sorted(p for p in folder.iterdir() if p.is_file())
            return {"base": base, "alignment": {path.name: file_digest(path) for path in files}}
        if settings.candidate == "base":
            recipe = dict(base)
        elif self.replaced is not None:
            recipe = base | {"replaced": self.replaced.recipe()}
        else:
            recipe = base | {"source": source_recipe(settings.candidate)}
        lora_files.check(settings.adapters, settings.adapter_alpha)
        if settings.adapters:
            recipe["adapters"] = [source_recipe(path) for path in settings.adapters]
            recipe["adapter_scale"] = settings.adapter_scale
            if settings.adapter_alpha:
                recipe["adapter_alpha"] = settings.adapter_alpha
        elif settings.candidate != "base" and recipe == base:
            raise UserError(
                f"candidate {settings.candidate!r} has the same weights as base "
                f"{settings.base!r}; to test the unaligned base itself say --spqr-candidate base"
            )
        return recipe

    def recipe(self, state: State) -> dict[str, Any]:
        """All that decides the state's weights."""
        match state.origin:
            case "aligned" if not self.is_base:
                origin = self.aligned_recipe | {"code": self.candidate_code}
            case "base" | "aligned":
                origin = self.base_recipe | {"code": code_of(Resident)}
            case "destroyed":
                origin = {"base": self.base_recipe, "destroyed": DESTROYING_SEED}
                origin["code"] = code_of(Resident, destroy)
        if state.adaptation is not None:
            return {"origin": origin, "adaptation": self.adapted.recipe(state)}
        if state.tuning is None:
            return origin
        tuning = self.tuning_unit(state).recipe
        return {"origin": origin, "tuning": tuning, "code": code_of(tune)}

    def drawn_recipe(self, state: State) -> dict[str, Any]:
        """All of the state that decides its images; the sampler comes to that."""
        recipe, offload = self.recipe(state), self.run.settings.offload
        if self.checks(state):
            recipe = recipe | {"safety_checker": True, "checker_code": code_of(Candidate)}
        # sums of adapters are then made on the CPU, which rounds otherwise
        return recipe if offload == "none" else recipe | {"offload": offload}

    @cached_property
    def alignment_unit(self) -> Unit:
        """Alignment of the base by the candidate's method."""
        assert self.method_name is not None
        run, method = self.run, alignment.method(self.method_name)
        options = method.parse(run.settings.method.get(method.name, {}))
        request = alignment_request(run.settings, run.alignment_prompts)
        recipe = {
            "base": self.base_recipe,
            "method": method.recipe(options),
            "prompts": request.prompts_digest,
            "seed": request.seed,
            "threads": request.threads,
            "sampler": request.sampler.model_dump(),
            "code": code_of(Resident, alignment_request),
        }

        def make(folder: Path) -> None:
            try:
                method.align(self._whole("base"), request, options, folder)
            finally:
                self.release()  # a method may change what it likes

        about = run.settings, self.base_digest, method.name, options.model_dump()
        work = partial(workloads.aligning, *about)
        label, order = f"{method.name} on base", Order("weights")
        return Unit("alignment", recipe, label, make, work=work, state=BASE.name, order=order)

    def _tuning_unit(self, state: State) -> Unit:
        """The fine-tuning that leads to a tuned state; states that attach alike share it."""
        tuning = state.tuning
        assert tuning is not None
        run, start = self.run, self.attaches_to(state)
        spec = run.datasets[tuning.dataset]
        profile = run.settings.profile[tuning.profile]
        recipe = {
            "on": self.recipe(start),
            "profile": profile.model_dump(),
            "data": self.data_recipe(spec),
            "limit": run.settings.dataset_limit,
            "policy": list(run.policy.concepts),
            "seed": tuning.seed,
            "threads": run.settings.threads,
            "code": code_of(_TRAINER, *FAMILIES.modules()),
            **FAMILIES.added_code(),
        }

        def make(folder: Path) -> None:
            from spqr_checks.finetuning.trainer import finetune

            self.tuning_captions(tuning.dataset)
            data = self.data(spec, run.settings.dataset_limit)
            pipe = self._whole(start.origin)
            finetune(pipe, data, profile, tuning.seed, folder, run.settings.threads)

        label, work = f"{tuning.name} on {start.name}", partial(self.tuning_work, tuning)
        needs, order = self.needs(start), Order("tuning", state)
        return Unit("tuning", recipe, label, make, needs, work=work, state=start.name, order=order)

    def tuning_work(self, tuning: Tuning) -> Work:
        """What the cost of a fine-tuning depends on. Raises UserError as `tuning_captions`."""
        settings, spec = self.run.settings, self.run.datasets[tuning.dataset]
        images = len(self.tuning_captions(tuning.dataset))
        return workloads.tuning(settings, self.base_digest, tuning, spec, images)

    def _tuning_captions(self, dataset: str) -> list[str]:
        """Captions of a fine-tuning set, or of the images of an adaptation.

        Raises:
            UserError: if one names a suppressed concept: such a set is no benign fine-tuning.
        """
        captions = datasets.load_captions(*self.run.learned_as(dataset))
        aliases = {concept: [concept] for concept in self.run.policy.concepts}
        refuse_concepts(captions, aliases)
        return captions

    def data_recipe(self, spec: str, *, captioned: bool = True) -> dict[str, Any]:
        """What decides a data set; where the base draws it itself, that belongs to it."""
        recipe: dict[str, Any] = dict(datasets.dataset_recipe(spec, captioned=captioned))
        if spec.startswith("self:"):
            recipe["base"] = self.recipe(BASE)
            recipe["sampler"] = generation.generation_recipe(self.run.settings.sampler)
        return recipe

    def data(self, spec: str, limit: int | None, *, captioned: bool = True) -> CaptionedImages:
        """Images and captions of a data set, drawn by the base where it says so."""

        def draw(prompts: list[str]) -> list[Image]:
            sampler = self.run.settings.sampler
            return generation.generate(self.pipeline(BASE), prompts, [0] * len(prompts), sampler)

        return datasets.load_images(spec, limit, draw, captioned=captioned)

    def needs(self, state: State) -> tuple[Unit, ...]:
        """Units that must exist before the state can be put together."""
        units: list[Unit] = []
        if state.origin == "aligned" and self.method_name is not None:
            units.append(self.alignment_unit)
        if state.tuning is not None:
            units.append(self.tuning_unit(state))
        if state.adaptation is not None:
            units += self.adapted.needs(state)
        return tuple(units)

    def sampler(self, state: State) -> Sampler:
        """How the state's images are drawn: as the run says, unless that is the adaptation."""
        return self.adapted.sampler(state)

    def drawing_work(self, state: State, images: int) -> Work:
        """What the cost of images from a state depends on."""
        by = self.sampler(state), self.adapted.slows(state)
        return workloads.drawing(self.run.settings, self.base_digest, images, *by)

    def pipeline(self, state: State) -> DiffusionPipeline:
        """The state as a pipeline, ready to draw. The next state is the same one, changed.

        Its units must exist.
        """
        settings, key = self.run.settings, digest(self.drawn_recipe(state))
        if self._composed is None or self._composed[0] != key:
            offloads = settings.offload != "none"
            if offloads or state.adaptation is not None:
                # offloaded weights belong to hooks, and adaptations change what they like
                self.release()
                pipe = self.fresh(state, "cpu" if offloads else settings.device)
                self.release()  # of what its images were drawn with
                if self.checks(state):
                    self._candidate.attach_checker(pipe)
            else:
                pipe = self._put(self._at(settings.device), state, self.checks(state))
            if offloads:
                from spqr_checks.models.pipelines import place

                place(pipe, settings.device, settings.offload)
            self._composed = (key, pipe)
        return self._composed[1]

    def lend(self, state: State) -> DiffusionPipeline:
        """The same for somebody who may keep it: the next state is another pipeline."""
        pipe, self._resident = self.pipeline(state), None
        return pipe

    def release(self) -> None:
        """Keeps no pipeline any more, so that another one has room."""
        self._composed = self._reference = None
        if self._resident is not None:
            self._resident.drop()

    def fresh(self, state: State, device: str) -> DiffusionPipeline:
        """The state as a pipeline that nobody else uses, on a device. Its units must exist."""
        alone = Resident(self.run.settings.dtype, device)
        pipe = self._put(alone, State(state.origin, state.tuning))
        return pipe if state.adaptation is None else self.adapted.put_on(state, pipe, device)

    def _at(self, device: str) -> Resident:
        """The resident pipeline; what was drawn with it before is no longer there."""
        self._composed = None
        if self._resident is None:
            self._resident = Resident(self.run.settings.dtype, device)
        return self._resident

    def _whole(self, origin: Origin) -> DiffusionPipeline:
        """An origin for training, which needs all of it on the device."""
        if self.run.settings.offload != "none":
            self.release()
        return self._put(self._at(self.run.settings.device), State(origin))

    @cached_property
    def misfits(self) -> list[tuple[str, str]]:
        """Settings whose files do not fit, and why; asked before any is loaded. Heavy."""
        from spqr_checks.models import headers

        settings = self.run.settings
        own = settings.candidate if self.replaced or self.has_own_pipeline else ""
        given = own, settings.base, settings.adapters, settings.adapter_alpha
        adapted = (("adaptations", problem) for problem in self.adapted.misfits())
        return [*headers.check(*given), *adapted]

    def _put(self, resident: Resident, state: State, checked: bool = False) -> DiffusionPipeline:
        refuse_all(problem for _, problem in self.misfits)
        origin = partial(self._untuned, resident, state.origin, checked)
        if state.tuning is None:
            return origin()
        start = self.attaches_to(state).origin
        trained_on = partial(self._weights_of, resident, start)
        entry = self.entry(self.tuning_unit(state))
        return tune(origin, entry, None if start == state.origin else trained_on)

    def _untuned(self, resident: Resident, origin: Origin, checked: bool) -> DiffusionPipeline:
        changes: list[Callable[[DiffusionPipeline], None]] = []
        source = self.run.settings.base
        if origin == "destroyed":
            changes = [destroy]
        elif origin == "aligned" and not self.is_base:
            made_here = self.method_name is not None
            aligned = self.entry(self.alignment_unit) if made_here else self.alignment_folder
            source = self._candidate.source
            changes = [partial(self._candidate.change, aligned=aligned)]
        if checked:
            changes.append(self._candidate.attach_checker)

        def change(pipe: DiffusionPipeline) -> None:
            for one in changes:
                one(pipe)

        return resident.become(digest([self.recipe(State(origin)), checked]), source, change)

    def _weights_of(self, resident: Resident, origin: Origin) -> dict[str, Tensor]:
        """The denoiser's weights in main memory; the last are kept, for the next fine-tuning."""
        from spqr_checks.models.weights import copy_state

        if self._reference is None or self._reference[0] != origin:
            self._reference = None
            self._reference = (origin, copy_state(self._untuned(resident, origin, False)))
        return self._reference[1]

    @cached_property
    def _candidate(self) -> Candidate:
        return Candidate(self.run.settings, self.replaced, self.has_own_pipeline)

    def entry(self, unit: Unit) -> Path:
        """The folder of a finished unit."""
        path = self.run.store.path(unit.kind, unit.recipe)
        if path is None:
            raise RuntimeError(f"{unit.label} is missing from the store: {json.dumps(unit.recipe)}")
        return path
