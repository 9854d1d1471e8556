"""Python processes that begin with the libraries loaded: importing them is most of a small run.

They are forked from a server that has imported them and done nothing else. What libraries read from
the environment when they are imported is the server's: who changes that starts a process as usual.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

LIBRARIES = [
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "peft",
    "scipy.stats",
    "transformers.models.clip.modeling_clip",
    "transformers.models.resnet.modeling_resnet",
]
"""None of this package: pytest has its own way to import what it is a plugin of."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(LIBRARIES)


def start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """``python -m MODULE WORD…`` in a process, and a session, of its own."""
    python, flag, module, *words = command
    assert (python, flag) == (sys.executable, "-m"), command
    process = _CONTEXT.Process(target=_be, args=(module, words, cwd, dict(env), out, err))
    process.start()
    return process


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` does, with its output captured as text."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = start(command, cwd, env, out, err)
        process.join(timeout)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)  # with the workers that it started
            process.join()
            raise subprocess.TimeoutExpired(list(command), timeout, out.read_bytes())
        assert process.exitcode is not None
        said = out.read_text("utf-8"), err.read_text("utf-8")
        return subprocess.CompletedProcess(list(command), process.exitcode, *said)


def _be(
    module: str, words: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    added = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [str(cwd), *added]
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
