"""One device and many workers: how many bytes of pipelines there are, and how long a run takes.

    python benchmarks/owners.py [--workers 8] [--devices cpu:0]

Runs a small suite on the embedded world, cold, with one worker and with many, and prints a line of
JSON: seconds of both, their ratio, and the most bytes of pipelines in all processes together at any
moment in which one of them drew, over those of one bare pipeline; and of the processes, which of
them loaded torch and how many processor seconds each took. pytest loads this file in every
worker (``-p owners``), where it notes what the process holds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spqr_checks.suites import suite_arguments

_NOTES = "SPQR_BENCHMARK_NOTES"
SETTINGS = """
[tool.spqr]
candidate = "method:uce"
concepts = ["hazard"]
languages = ["en"]
domains = ["photo"]
datasets = ["miniature:stripes"]
dataset_limit = 4
mode = "fixed"
images = 4
images_lookalike = 4
images_benign = 4
images_gain = 4
images_reference = 8
[tool.spqr.sampler]
steps = 4
batch = 4
[tool.spqr.profile.lite]
steps = 4
"""


def run(folder: Path, workers: int, devices: str) -> dict[str, Any]:
    """A cold run."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {_NOTES: str(notes), "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "owners"]
    command += [f"--rootdir={folder}"]
    command += ["-n", str(workers), f"--spqr-devices={devices}", *suite_arguments()]
    start = time.monotonic()
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - start
    card = folder / "spqr-report" / "scorecard.json"
    if not card.is_file() or not json.loads(card.read_text(encoding="utf-8"))["complete"]:
        raise SystemExit(f"the run is incomplete:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    drawn = [
        json.loads(line) for file in notes.glob("*.drawn") for line in file.read_text().splitlines()
    ]
    return {
        "workers": workers,
        "seconds": round(seconds, 1),
        "drew": len(list(notes.glob("*.drawn"))),
        "batches": len(drawn),
        "peak": max(one["all"] for one in drawn),
        "bare": min(one["bare"] for one in drawn),
        "processes": {
            file.stem: json.loads(file.read_text()) for file in sorted(notes.glob("*.ended"))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--devices", default="cpu:0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        one = run(Path(name) / "one", 1, options.devices)
        many = run(Path(name) / "many", options.workers, options.devices)
    ratio = {"time": many["seconds"] / one["seconds"], "memory": many["peak"] / many["bare"]}
    print(json.dumps({"one": one, "many": many, "ratio": ratio}))


# ---- as a plugin, in every process of a run ------------------------------------------------------


def pytest_unconfigure(config: Any) -> None:
    """Notes what the process took and loaded."""
    if _NOTES in os.environ:
        name = getattr(config, "workerinput", {}).get("workerid", "controller")
        took = time.process_time()
        found = {"seconds": round(took, 2), "torch": "torch" in sys.modules} | _at_first
        (Path(os.environ[_NOTES]) / f"{name}.ended").write_text(json.dumps(found))


def pytest_runtest_logstart() -> None:
    """Notes what was loaded and drawn here before the first test."""
    if _NOTES in os.environ and not _at_first:
        drawn = Path(os.environ[_NOTES]) / f"{os.getpid()}.drawn"
        _at_first.update(ready="diffusers" in sys.modules, ahead=drawn.exists())


_at_first: dict[str, bool] = {}


def pytest_configure() -> None:
    """Notes the bytes of this process's pipelines, and of all when it draws."""
    if _NOTES not in os.environ:
        return
    from spqr_checks.generation import sampling
    from spqr_checks.runtime.resident import Resident

    notes = Path(os.environ[_NOTES])
    draw = sampling.draw

    def noting(pipe: Any, *given: Any) -> Any:
        _note(notes)
        every = sum(int(path.read_text() or 0) for path in notes.glob("*.held"))
        with (notes / f"{os.getpid()}.drawn").open("a") as file:
            file.write(json.dumps({"all": every, "bare": _bytes([pipe])}) + "\n")
        return draw(pipe, *given)

    sampling.draw = noting
    for name in ("become", "drop"):
        setattr(Resident, name, _then(getattr(Resident, name), lambda: _note(notes)))


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def both(*given: Any) -> Any:
        result = function(*given)
        after()
        return result

    return both


def _note(notes: Path) -> None:
    if "diffusers" not in sys.modules:
        return
    from diffusers import DiffusionPipeline

    found = [one for one in gc.get_objects() if issubclass(type(one), DiffusionPipeline)]
    draft = notes / f"{os.getpid()}.draft"
    draft.write_text(str(_bytes(found)))
    os.replace(draft, notes / f"{os.getpid()}.held")


def _bytes(pipes: list[Any]) -> int:
    from spqr_checks.models.weights import networks

    parts = {id(part): part for pipe in pipes for part in networks(pipe).values()}
    tensors = {id(t): t for part in parts.values() for t in (*part.parameters(), *part.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


if __name__ == "__main__":
    main()
