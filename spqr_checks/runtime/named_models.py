"""What the settings call base and candidate. Light."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from spqr_checks.alignment import registry as alignment
from spqr_checks.alignment.method import RECORD, Attach, recorded_method
from spqr_checks.alignment.registry import recorded_guidance
from spqr_checks.hashing import digest
from spqr_checks.matrix import BASE, State
from spqr_checks.models.components import Replacement, replacement
from spqr_checks.models.provenance import differences
from spqr_checks.models.sources import source_recipe
from spqr_checks.runtime.candidates import Candidate
from spqr_checks.runtime.devices import kind_of
from spqr_checks.runtime.resident import Resident
from spqr_checks.runtime.run import Run
from spqr_checks.source_code import code_of

METHOD = "method:"


class NamedModels:
    """The base and the candidate of one run, as its settings name them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def base_recipe(self) -> dict[str, Any]:
        settings = self.run.settings
        return {
            "source": source_recipe(settings.base),
            "dtype": settings.dtype,
            "device": kind_of(settings.device),
        }

    @cached_property
    def base_digest(self) -> str:
        """By which times are compared."""
        return digest(self.base_recipe)

    @cached_property
    def method_name(self) -> str | None:
        """Name of the alignment method, if the candidate is ``method:NAME``."""
        candidate = self.run.settings.candidate
        return candidate.removeprefix(METHOD) if candidate.startswith(METHOD) else None

    @cached_property
    def alignment_folder(self) -> Path | None:
        """The candidate, if it is a folder that `spqr align` wrote."""
        folder = Path(self.run.settings.candidate)
        return folder if (folder / RECORD).is_file() else None

    @cached_property
    def replaced(self) -> Replacement | None:
        """What a candidate ``denoiser=…`` or ``text-encoder=…`` replaces in the base."""
        return replacement(self.run.settings.candidate)

    @property
    def has_own_pipeline(self) -> bool:
        """Whether the candidate is a pipeline of its own, with tokenizer and scheduler."""
        made_here = self.method_name or self.alignment_folder or self.replaced
        return not made_here and self.run.settings.candidate != "base"

    @cached_property
    def notes(self) -> list[str]:
        """What besides the weights is not the base's in a candidate's own pipeline."""
        settings = self.run.settings
        return differences(settings.base, settings.candidate) if self.has_own_pipeline else []

    @cached_property
    def is_base(self) -> bool:
        """Whether the candidate is the unaligned base itself, and so shares its images."""
        settings = self.run.settings
        return settings.candidate == "base" and not settings.adapters

    @cached_property
    def candidate_code(self) -> str:
        """Digest of what puts the candidate together; a method's own code is in its unit."""
        folder = self.alignment_folder
        guidance = recorded_guidance(folder) if folder is not None else None
        return code_of(Resident, Candidate, *([type(guidance)] if guidance is not None else []))

    def checks(self, state: State) -> bool:
        """Whether a safety checker looks at the state's images: it belongs to the candidate."""
        return self.run.settings.safety_checker and state.origin == "aligned"

    def attaches_to(self, state: State) -> State:
        """Whose weights the fine-tuning of a state is trained on.

        Users of a modular candidate fine-tune the original base; the safety adapter is put on
        afterwards (Safety Alignment Backfires, Modular LoRA).
        """
        modular = state.origin == "aligned" and self.attach == "base"
        return BASE if modular else State(state.origin)

    @property
    def attach(self) -> Attach:
        """Where users' fine-tuning attaches: as the settings say, else as the method says."""
        attach = self.run.settings.attach
        if attach != "auto":
            return attach
        if self.alignment_folder is not None:
            # a record is data: it may not say which module is imported
            name = recorded_method(self.alignment_folder)
            return alignment.method(name, objects=False).attach
        return alignment.method(self.method_name).attach if self.method_name else "released"
