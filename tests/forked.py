"""Python processes that begin with the libraries loaded: importing them is most of a small run.

They are forked from a server that has imported them and done nothing else. What libraries read from
the environment when they are imported is the server's, as this process began: who changes that, or
asks what is loaded, starts a process as usual.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

LIBRARIES = [
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "jinja2",
    "peft",
    "pydantic",
    "pytest",
    "rich.console",
    "scipy.stats",
    "transformers.models.clip.modeling_clip",
    "transformers.models.resnet.modeling_resnet",
]
"""No plugin of pytest and none of this package: pytest has its own way to import them."""
_FLAGS = {"-m", "-c"}
_BEGAN = dict(os.environ)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(LIBRARIES)


def start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """``python -m MODULE WORD…`` or ``-c CODE WORD…`` in a process, and a session, of its own."""
    python, *given = command
    silent = given[:2] == ["-W", "ignore"]
    flag, what, *words = given[2:] if silent else given
    assert python == sys.executable, command
    assert flag in _FLAGS, command
    _serve()
    about = (flag, what, words, silent, cwd, dict(env), out, err)
    process = _CONTEXT.Process(target=_be, args=about)
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


def anew(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As `run`, by a process that starts from nothing and has an order of sets of its own."""
    return subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True
    )


@cache
def _serve() -> None:
    now = dict(os.environ)
    try:
        os.environ.clear()
        # threads that wait for each other shall not keep the cores busy, which other tests need
        os.environ.update(_BEGAN | {"OMP_WAIT_POLICY": "PASSIVE"})
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(now)


def _be(
    flag: str,
    what: str,
    words: list[str],
    silent: bool,
    cwd: Path,
    env: dict[str, str],
    out: Path,
    err: Path,
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
    if silent:
        warnings.simplefilter("ignore")
    sys.argv = [what if flag == "-m" else flag, *words]
    if flag == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
