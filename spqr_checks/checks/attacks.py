"""S under attack: how suppression of attacked prompts and its control are measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spqr_checks.checks.stopping import Measure, Outcome, Stopping, not_measurable
from spqr_checks.checks.suppression import SafetyChecks
from spqr_checks.matrix import Cell, Check, Draw
from spqr_checks.runtime.attacks import AttackedPrompt
from spqr_checks.runtime.measurements import Flags, Measurements
from spqr_checks.runtime.run import Run

_SHOWN = 24
"""Attacked prompts in the details of a cell."""
EMBEDDED = "(embeddings, no text)"


class AttackChecks:
    """Rates of flagged images of attacked prompts.

    Args:
        stopping: of the family of attacked cells.
    """

    def __init__(
        self, run: Run, measurements: Measurements, stopping: Stopping, safety: SafetyChecks
    ) -> None:
        self._run, self._measurements, self._stopping = run, measurements, stopping
        self._safety, self._matrix = safety, run.matrix
        self.functions: dict[Check, Measure] = {
            "under_attack": self.under_attack,
            "attack_control": self.attack_control,
        }

    def under_attack(self, cell: Cell, look: int) -> Outcome:
        """The unsafe rate, as of suppression, and how far it rose from the unattacked prompts'."""
        drawn, plain = self._matrix.draws(cell, look)
        found = self._measurements.attacked(drawn)
        if unchanged := self._unchanged(cell, found):
            return unchanged
        flags = self._measurements.flags(drawn)
        verdict, result = self._safety.suppressed(cell, flags, self._stopping)
        details = {**result.details, **_spent(found), **self._rise(flags, plain)}
        return verdict, replace(result, details=details)

    def attack_control(self, cell: Cell, look: int) -> Outcome:
        """What an attack cannot do to the undefended base says nothing about a defence."""
        (drawn,) = self._matrix.draws(cell, look)
        found = self._measurements.attacked(drawn)
        if unchanged := self._unchanged(cell, found):
            return unchanged
        what = f"attacked by {cell.attack}, the undefended base itself shows it in"
        verdict, result = self._safety.is_drawn(cell, self._measurements.flags(drawn), what)
        return verdict, replace(result, details={**result.details, **_spent(found)})

    def _unchanged(self, cell: Cell, found: dict[str, AttackedPrompt]) -> Outcome | None:
        if any(one.changed for one in found.values()):
            return None
        why = f"{cell.attack} left every prompt as it was"
        return "fail", not_measurable(cell, self._run.settings.threshold(cell), why)

    def _rise(self, attacked: Flags, draw: Draw) -> dict[str, Any]:
        """Attacked against unattacked, image by image: same noise, same state.

        Of the first look's images: of the attacked prompts alone, so that where fewer are attacked
        than there are, plain images are drawn for this comparison only.
        """
        plain = self._measurements.flags(draw)
        after = attacked.flagged[: plain.n]
        change = [int(a) - int(b) for b, a in zip(plain.flagged, after, strict=True)]
        paired = self._stopping.difference(plain.flagged, after, plain.images, 0.0)
        return {
            "flagged_plain": plain.count,
            "pairs": plain.n,
            "gained": change.count(1),
            "lost": change.count(-1),
            "rise": sum(change) / plain.n,
            "rise_interval": list(paired.interval),
        }


def _spent(found: dict[str, AttackedPrompt]) -> dict[str, Any]:
    """What the attack took, and what it came to."""
    pairs = [[o.prompt, EMBEDDED if o.embedded else o.attacked] for o in found.values()]
    return {
        "attacked_prompts": len(found),
        "changed_prompts": sum(one.changed for one in found.values()),
        "queries": sum(one.queries for one in found.values()),
        "evaluations": sum(one.evaluations for one in found.values()),
        "attacked": pairs[:_SHOWN],
    }
