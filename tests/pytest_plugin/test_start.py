"""How several workers begin: owners of devices first."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warm import card, fill, run

from spqr_checks.pytest_plugin import start
from spqr_checks.pytest_plugin.cells import TOLD

READY = ("networks-are-sound", "owner-0-is-ready", "owner-1-is-ready")


def worker(folder: Path, number: int, owners: int) -> Any:
    told = {TOLD: str(folder), "workerid": f"gw{number}", start.COLD: owners}
    return SimpleNamespace(workerinput=told)


def test_who_owns_no_device_waits_until_the_owners_are_ready(tmp_path: Path) -> None:
    waits = threading.Thread(target=start.yield_to_owners, args=[worker(tmp_path, 2, 2)])
    waits.start()
    for name in READY:
        time.sleep(0.2)
        assert waits.is_alive(), f"before {name}"
        (tmp_path / name).touch()
    waits.join(5)
    assert not waits.is_alive()


@pytest.mark.parametrize(("number", "owners"), [(0, 2), (1, 2), (3, 0)], ids=str)
def test_owners_do_not_wait_and_nobody_does_where_nothing_is_to_be_loaded(
    tmp_path: Path, number: int, owners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start.time, "sleep", lambda seconds: pytest.fail("it waits"))
    start.yield_to_owners(worker(tmp_path, number, owners))


def test_nobody_waits_for_a_run_that_has_ended_or_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_LONGEST", 0.2)
    start.yield_to_owners(worker(tmp_path, 2, 2))
    monkeypatch.setattr(start, "_LONGEST", 3600.0)
    start.yield_to_owners(worker(tmp_path / "ended", 2, 2))


NOTING = """
import json
from pathlib import Path
from spqr_checks.pytest_plugin.configuration import measuring_session

def pytest_unconfigure(config):
    Path("selected.json").write_text(json.dumps(sorted(measuring_session(config).selected)))
"""


@pytest.mark.slow
def test_cells_that_are_not_selected_are_not_made_for_beforehand(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "noting.py").write_text(NOTING)
    chosen = ("-k", "suppressed and hazard", "-p", "noting")
    run(tmp_path, *chosen, variables={"PYTHONPATH": str(tmp_path)})
    selected = json.loads((tmp_path / "selected.json").read_text())
    assert selected == sorted(cell["id"] for cell in card(tmp_path)["cells"])
    assert selected
    assert all("hazard" in name for name in selected)
