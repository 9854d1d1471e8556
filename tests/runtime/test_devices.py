"""Which devices a run has, who may own which, and what of that decides bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.preflight import preflight
from spqr_checks.runtime import devices
from spqr_checks.runtime.devices import Worker, lease_name, own_device, place_of
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cores", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("given", "workers", "names"),
    [
        ({}, 2, ("cpu:0", "cpu:1")),
        ({}, 8, ("cpu:0", "cpu:1", "cpu:2", "cpu:3")),
        ({"threads": 2}, 8, ("cpu:0", "cpu:1")),
        ({"threads": 16}, 8, ("cpu:0",)),
        ({"device": "cpu:1"}, 8, ("cpu:0", "cpu:1", "cpu:2", "cpu:3")),
        ({"device": "cuda"}, 8, ("cuda",)),
        ({"device": "cuda:1"}, 8, ("cuda:1",)),
        ({"devices": ("cuda:0", "cuda:2")}, 8, ("cuda:0", "cuda:2")),
    ],
)
def test_the_devices_of_a_run(given: Any, workers: int, names: tuple[str, ...]) -> None:
    assert devices.devices(Settings(**given), workers) == names


def test_visible_accelerators_are_the_run_s_and_known_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    settings = Settings(device="cuda")
    assert [own_device(settings, Worker(n, 3)) for n in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [lease_name(name) for name in ("cuda:0", "cuda:1")] == ["cuda_3", "cuda_GPU-5a"]
    assert lease_name("cuda") == lease_name("cuda:0")


def test_the_processor_as_a_whole_is_waited_for_by_nobody() -> None:
    assert (lease_name("cpu"), lease_name("cpu:1")) == ("", "cpu_1")
    assert (place_of("cpu:1"), place_of("cuda:1")) == ("cpu", "cuda:1")


def test_neither_devices_nor_their_owner_decide_bytes(tmp_path: Path) -> None:
    def recipes(worker: Worker | None, **given: Any) -> list[Any]:
        run = Run.from_settings(load_settings(tmp_path, {"concepts": "hazard"} | given))
        session = MeasuringSession(run, worker=worker)
        cell = next(cell for cell in run.matrix.cells if cell.row.reads == "verdicts")
        return [unit.recipe for unit in session.reads(cell, 1)] + [run.settings.measured()]

    plain = recipes(None)
    assert recipes(None, devices="cpu:0") == plain
    assert recipes(Worker(1, 2), devices="cpu:0,cpu:1") == plain
    assert recipes(Worker(3, 8)) == plain


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"devices": "cpu:0,cuda:0"}, "devices of several kinds .cpu, cuda."),
        ({"devices": "cuda:0", "device": "cpu"}, "devices of several kinds"),
        ({"devices": "cpu:0,gpu"}, "devices of several kinds"),
    ],
)
def test_devices_that_contradict_each_other_are_refused(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=f"--spqr-devices: .*{said}"):
        preflight(load_settings(tmp_path, given), measures=False)
