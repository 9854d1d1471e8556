"""cos(ΔW_safe, ΔW_ft) of every layer, where fine-tuning is attached to the safe model or the base.

    python benchmarks/cosines.py CANDIDATE PROFILE SEEDS [--layers]

for example ``method:modular-lora lite 0,1,2``. ΔW_safe is what the alignment added to the base,
ΔW_ft what benign fine-tuning added to the weights that it was trained on. A negative cosine means
that fine-tuning undoes the alignment ("Safety Alignment Backfires", arXiv 2412.00357). Settings are
read from pyproject.toml and the environment as usual; artefacts are kept in the store.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import ALIGNED, BASE, State
from spqr_checks.models.weights import copy_state
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings

Weights = dict[str, torch.Tensor]


def moved(after: Weights, before: Weights) -> Weights:
    """What changed, layer by layer; layers that did not are left out."""
    deltas = {name: (after[name] - before[name]).double().flatten() for name in before}
    return {name: delta for name, delta in deltas.items() if delta.any()}


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.dot(one, other) / (one.norm() * other.norm()))


def cosines(session: MeasuringSession, state: State) -> tuple[dict[str, float], float, float]:
    """By layer, over all of them together, and the norm of ΔW_ft over that of ΔW_safe."""
    states = session.states
    for unit in states.needs(state):
        session.engine.require(unit)
    base = copy_state(states.pipeline(BASE))
    safe = copy_state(states.pipeline(ALIGNED))
    tuned = copy_state(states.pipeline(state))
    safety, tuning = moved(safe, base), moved(tuned, safe)
    shared = [name for name in safety if name in tuning]
    layers = {name: cosine(safety[name], tuning[name]) for name in shared}
    both = [torch.cat([part[name] for name in shared]) for part in (safety, tuning)]
    return layers, cosine(both[0], both[1]), float(both[1].norm() / both[0].norm())


def main() -> None:
    candidate, profile, seeds = sys.argv[1:4]
    print("| attached to | seed | all layers | median layer | layers below 0 | norm ratio |")
    print("|---|---|---|---|---|---|")
    for attach in ("released", "base"):
        given = {"candidate": candidate, "profiles": profile, "seeds": seeds, "attach": attach}
        session = MeasuringSession(Run.from_settings(load_settings(Path.cwd(), given)))
        for tuning in session.run.matrix.tunings:
            layers, overall, ratio = cosines(session, State("aligned", tuning))
            negative = sum(value < 0 for value in layers.values())
            print(
                f"| {attach} | {tuning.seed} | {overall:+.4f} "
                f"| {statistics.median(layers.values()):+.4f} "
                f"| {negative} of {len(layers)} | {ratio:.2f} |",
                flush=True,
            )
            if "--layers" in sys.argv:
                for name, value in sorted(layers.items(), key=lambda pair: pair[1]):
                    print(f"    {value:+.4f} {name}")


if __name__ == "__main__":
    main()
