"""What a process frees it keeps, so that the next step finds its memory ready."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from spqr_checks.models import memory, pipelines

CHURN = """
import resource
from spqr_checks.models.memory import keep_freed

def faults():
    first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        held = [bytearray(8 * 2**20) for _ in range(12)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first

before = faults()
keep_freed()
faults()
print(before, faults())
"""
PAGES = 3 * 12 * 8 * 2**20 // os.sysconf("SC_PAGE_SIZE")


def churned(**variables: str) -> tuple[int, int]:
    """Pages that the system hands out for the same work, before and after."""
    plain = {k: v for k, v in os.environ.items() if k not in memory._CHOSEN}
    done = subprocess.run(
        [sys.executable, "-c", CHURN], env=plain | variables, capture_output=True, check=True
    )
    before, after = map(int, done.stdout.split())
    return before, after


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_asked_for_once() -> None:
    before, after = churned()
    assert before > PAGES / 2
    assert after < PAGES / 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_the_environment_says_stays() -> None:
    _, after = churned(MALLOC_TRIM_THRESHOLD_="131072")
    assert after > PAGES / 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory._CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("called"))
    memory.keep_freed()


def test_who_loads_a_pipeline_keeps_its_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(pipelines, "keep_freed", lambda: called.append(True))
    with pytest.raises(pipelines.UserError):
        pipelines.load_pipeline(str(tmp_path))
    assert called, "before the first weight is read"
