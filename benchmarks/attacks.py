"""What attacks get out of candidates: unsafe rates plain and attacked, queries and seconds.

    python benchmarks/attacks.py ATTACKS CANDIDATES CONCEPTS [N [PROMPTS [PROFILES]]]

for example ``ring-a-bell,unlearndiffatk base,method:uce "red triangle,yellow star" 96 6``: N images
for each concept, in English, of PROMPTS prompts, the same for plain and attacked. With PROFILES
(``standard``), also after those fine-tunings. Settings, guards among them, are read from
pyproject.toml and the environment as usual; all is kept in the store, so that another run goes on.
*Let through* are attacked images that no guard and no safety checker blocked; those of *attacked*
are unsafe besides, which is the joint success. *Shown* says which concepts these show: a judge
calls every suppressed concept unsafe, and an attack may find another than the prompt's.
Seconds are those of one prompt, from the store's timings; 0 where a result was there already.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import ALIGNED, Cell, State
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.settings import load_settings
from spqr_checks.statistics.evidence import difference
from spqr_checks.statistics.intervals import wilson
from spqr_checks.store import timings

HEAD = (
    "| attack | candidate | control | plain | let through | attacked | shown | rise, points "
    "| prompts | queries each | seconds each |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def percent(count: int, n: int) -> str:
    """With its Wilson interval and n."""
    low, high = wilson(count, n)
    return f"{100 * count / n:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({n})"


def total(results: list[CellResult], key: str) -> int:
    """Of a detail of all measured cells."""
    return sum(int(result.details[key]) for result in results)


def row(session: MeasuringSession, attack: str, state: State, candidate: str) -> str:
    """Of one state; pooled over the concepts whose control holds."""
    every = [cell for cell in session.run.matrix.cells if cell.attack == attack]
    cells = [cell for cell in every if cell.is_control or cell.state == state]
    measured = {cell: session.measure(cell) for cell in cells}
    held = [r for c, r in measured.items() if c.is_control]
    found = [r for c, r in measured.items() if not c.is_control and r.value is not None]
    control = percent(total(held, "flagged"), sum(r.n for r in held))
    if not found:
        return f"| {attack} | {candidate} | {control} | not measurable | | | | | | | |"
    n, prompts = total(found, "pairs"), total(found, "attacked_prompts")
    plain, attacked = total(found, "flagged_plain"), total(found, "flagged")
    gained, lost = total(found, "gained"), total(found, "lost")
    table = (attacked - gained, gained, lost, n - attacked - lost)
    low, high = difference(*table, 0.0, 0.95).interval
    rise = f"{100 * (gained - lost) / n:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    queries = total(found, "queries") / prompts
    passed = n - sum(int(r.details.get("blocked", 0)) for r in found)
    own = [c for c in cells if not c.is_control]
    took, seen = seconds(session, own), shown(session, own)
    return (
        f"| {attack} | {candidate} | {control} | {percent(plain, n)} | {percent(passed, n)} "
        f"| {percent(attacked, n)} | {seen} | {rise} | {prompts} | {queries:.1f} | {took:.1f} |"
    )


def shown(session: MeasuringSession, cells: list[Cell]) -> str:
    """The concept that each unsafe attacked image shows most, with how many do."""
    units, found = session.units, Counter[str]()
    draws = [session.run.matrix.draws(cell, 1)[0] for cell in cells]
    for batch in (batch for draw in draws for batch in units.batches(draw)):
        folder = session.engine.require(units.verdicts(batch))
        rows = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
        found.update(max(r["scores"], key=r["scores"].get) for r in rows if r["unsafe"])
    return ", ".join(f"{concept} {count}" for concept, count in found.most_common())


def seconds(session: MeasuringSession, cells: list[Cell]) -> float:
    """Mean time of one prompt of these cells."""
    labels = {f"{c.attack} on {c.state.name}: {c.concept}/{c.language}/{c.domain}" for c in cells}
    known, _ = timings.read(session.run.store.root)
    took = [timing.seconds for timing in known if timing.label in labels]
    return sum(took) / len(took) if took else 0.0


def main() -> None:
    attacks, candidates, concepts, *numbers = sys.argv[1:]
    given_n, given_prompts, profiles = [*numbers, *("96", "6", "")[len(numbers) :]]
    n, prompts = int(given_n), int(given_prompts)
    print(HEAD)
    for candidate in candidates.split(","):
        given: dict[str, Any] = {
            "candidate": candidate,
            "attacks": attacks,
            "concepts": concepts,
            "languages": "en",
            "profiles": profiles,
            "mode": "fixed",
            "images": n,
            "attack_prompts": prompts,
            "attach": "auto",
        }
        settings = load_settings(Path.cwd(), given)
        session = MeasuringSession(Run.from_settings(settings))
        for chosen in session.run.attacks:
            for state in (ALIGNED, *(State("aligned", t) for t in session.run.matrix.tunings)):
                name = candidate if state == ALIGNED else f"{candidate}, {state.short}"
                print(row(session, chosen.name, state, name), flush=True)


if __name__ == "__main__":
    main()
