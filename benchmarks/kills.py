"""Kills workers and controllers of runs at random moments; the last run must end in equal bytes.

    python benchmarks/kills.py 20 [spqr run arguments …]

One undisturbed run is made first, in a store of its own, for comparison.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes started by a process (Linux)."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(word) for word in listed.stdout.split()]


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "spqr_checks.cli", "run", "-n2", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet)


def card(folder: Path) -> bytes:
    return (folder / "spqr-report" / "scorecard.json").read_bytes()


def main() -> None:
    kills, arguments = int(sys.argv[1]), sys.argv[2:]
    rng = random.Random(2511)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        began = time.perf_counter()
        status = start(Path(one), arguments).wait()
        seconds = time.perf_counter() - began
        print(f"undisturbed: exit {status}, {seconds:.0f} s", flush=True)
        done = 0
        while done < kills:
            process = start(Path(two), arguments)
            time.sleep(rng.uniform(2, max(4, 1.5 * seconds / kills)))
            workers = children(process.pid)
            if process.poll() is not None:
                print(f"finished before kill {done + 1}: exit {process.returncode}", flush=True)
                (Path(two) / "spqr-report" / "scorecard.json").unlink(missing_ok=True)
                store = Path(two) / ".spqr"
                for kind in ("verdicts", "tuning"):
                    subprocess.run(["rm", "-rf", str(store / kind)], check=True)
                continue
            victim = rng.choice(["worker", "controller"]) if workers else "controller"
            os.kill(rng.choice(workers) if victim == "worker" else process.pid, signal.SIGKILL)
            status = process.wait()
            # an orphaned worker of a killed controller ends by itself; do not wait for it
            done += 1
            print(f"kill {done}: {victim}, exit {status}", flush=True)
        status = start(Path(two), arguments).wait()
        same = card(Path(one)) == card(Path(two))
        print(f"last run: exit {status}; scorecards {'equal' if same else 'DIFFER'}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
