"""Units of work, artefacts of the store; the modules here make them where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spqr_checks.store.timings import Work


@dataclass(frozen=True, eq=False)
class Unit:
    """One artefact, addressed by ``kind`` and ``recipe``.

    Attributes:
        label: what people see while it is built.
        needs: artefacts that must exist first.
        make: writes the artefact's files into an empty folder; imports heavy libraries itself.
        heavy: whether it computes much (generation, training, judging), and so occupies a device.
        device: which one; None is that of the run. What computes on the CPU waits for no other.
        work: what its cost depends on; asked for once it is made, or to estimate a run.
    """

    kind: str
    recipe: dict[str, Any]
    label: str
    make: Callable[[Path], None]
    needs: tuple[Unit, ...] = field(default=())
    heavy: bool = True
    device: str | None = None
    work: Callable[[], Work] | None = None
