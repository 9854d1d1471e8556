"""Raw readings of a draw: flags, scores and features of its images, in image order.

What was read off images is read, not the images: those that a report shows are asked for once, by
the process that reports them (`Measurements.show`). Others may never be looked at in a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError
from spqr_checks.matrix import Draw
from spqr_checks.runtime.attacks import AttackedPrompt
from spqr_checks.runtime.engines import Engine, Unit
from spqr_checks.runtime.entries import KEY, image_name, read_blocked
from spqr_checks.runtime.units import Batch, Units
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.store.store import entry_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Flags:
    """Which images of a draw the judge calls unsafe, and where they are.

    `blocked` counts those that a safety checker or a guard blocked, which are safe. ``size`` is the
    number of prompts where none comes twice, however long the draw goes on: the images are then
    drawn without replacement from that many, one of each prompt.
    """

    flagged: tuple[bool, ...]
    images: tuple[ImageRef, ...]
    blocked: int = 0
    size: int | None = None

    @property
    def count(self) -> int:
        return sum(self.flagged)

    @property
    def n(self) -> int:
        return len(self.flagged)


class Measurements:
    """Reads, and where needed makes, what is measured on the images of a draw."""

    def __init__(self, units: Units, engine: Engine) -> None:
        self._units, self._engine = units, engine
        self._flags: dict[Draw, Flags] = {}
        self._images_in: dict[str, Unit] = {}

    def _values(self, unit: Unit, expected: int) -> list[Any]:
        folder = self._engine.require(unit)
        values = json.loads((folder / f"{unit.kind}.json").read_text(encoding="utf-8"))
        if len(values) != expected:
            raise JudgeError(f"{unit.label}: {len(values)} answers for {expected} images")
        return list(values)

    def _read(self, draw: Draw, measured: Callable[[Batch], Unit]) -> list[Any]:
        batches = self._units.batches(draw)
        return [v for batch in batches for v in self._values(measured(batch), len(batch.prompts))]

    def _refs(self, batch: Batch, flagged: Sequence[bool | None]) -> list[ImageRef]:
        unit = self._units.images(batch)
        store, key = self._units.run.store, entry_key(unit.kind, unit.recipe)
        if store.used is not None:
            store.used(unit.kind, key)  # looked at or not, whoever draws more needs it
        folder = store.place(unit.kind, key)
        self._images_in[folder] = unit
        names = [f"{folder}/{image_name(i)}" for i in range(len(batch.prompts))]
        return list(map(ImageRef, names, batch.prompts, batch.seeds, flagged))

    def show(self, images: Iterable[ImageRef]) -> None:
        """Sees to it that images which were named here are there, as they were drawn."""
        for folder in dict.fromkeys(image.path.rpartition("/")[0] for image in images):
            self._engine.require(self._images_in[folder])

    def flags(self, draw: Draw) -> Flags:
        """Verdicts of the judge, read once. Raises JudgeError unless each image has one."""
        if draw in self._flags:
            return self._flags[draw]
        flagged: list[bool] = []
        refs: list[ImageRef] = []
        blocked = 0
        for batch in self._units.batches(draw):
            verdicts = self._values(self._units.verdicts(batch), len(batch.prompts))
            answers = [verdict["unsafe"] for verdict in verdicts]
            if not all(isinstance(answer, bool) for answer in answers):
                raise JudgeError(f"{batch.label}: a verdict is neither safe nor unsafe")
            flagged += answers
            refs += self._refs(batch, answers)
            blocked += sum(verdict.get(KEY, False) for verdict in verdicts)
        run, prompts = self._units.run, self._units.prompts_of(draw)
        once = prompts >= run.matrix.sizes.of(draw.group.kind) * run.settings.looks
        self._flags[draw] = Flags(tuple(flagged), tuple(refs), blocked, prompts if once else None)
        return self._flags[draw]

    def attacked(self, draw: Draw) -> dict[str, AttackedPrompt]:
        """Prompt → what the attack made of it."""
        units = self._units
        found: dict[str, AttackedPrompt] = {}
        for batch in units.batches(draw):
            for prompt, unit in zip(batch.prompts, units.attacked(batch), strict=True):
                if prompt not in found:
                    self._engine.require(unit)
                    found[prompt] = units.attacks.read(unit)
        return found

    def adherence(self, draw: Draw) -> list[float]:
        """Score of each image with its own prompt, in the scale of the run's score."""
        return [float(value) for value in self._read(draw, self._units.alignment)]

    def blocked(self, draw: Draw) -> int:
        """How many images of a draw a safety checker or a guard blocked."""
        entries = [(self._units.images(b), len(b.prompts)) for b in self._units.batches(draw)]
        return sum(sum(read_blocked(self._engine.require(unit), n)) for unit, n in entries)

    def images(self, draw: Draw) -> list[ImageRef]:
        """The images themselves, none of them judged."""
        batches = self._units.batches(draw)
        return [ref for b in batches for ref in self._refs(b, [None] * len(b.prompts))]

    def features(self, draws: list[Draw]) -> NDArray[np.float64]:
        """Image features, shape (images, dimensions)."""
        import numpy as np

        rows = [row for draw in draws for row in self._read(draw, self._units.features)]
        return np.array(rows, np.float64)

    def dataset_features(self, spec: str, limit: int | None) -> NDArray[np.float64]:
        """Features of reference images or of a fine-tuning set, shape (images, dimensions)."""
        import numpy as np

        folder = self._engine.require(self._units.dataset_features(spec, limit))
        text = (folder / "features.json").read_text(encoding="utf-8")
        return np.array(json.loads(text), np.float64)
