"""How a cold run of several workers begins: who computes is ready first, and begins at once.

Starting takes each worker a second of a processor, and xdist gives out the first test when all have
collected. Until then the controller holds networks against their files, and the owners of devices
load their libraries and make what the run needs; the other workers begin when those are ready.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.cells import TOLD
from spqr_checks.pytest_plugin.configuration import (
    UNSEEN,
    has_session,
    is_worker,
    measuring_session,
)

COLD = "spqr_cold"
"""What the controller tells its workers: how many of them will load networks not seen yet."""
TOLD_IN: pytest.StashKey[Path] = pytest.StashKey()
"""The folder that a run's processes share until it ends."""
_SOUND, _READY = "networks-are-sound", "owner-{}-is-ready"
"""Files there by which the controller and the owners of devices say so."""
_LONGEST, _PAUSE = 30.0, 0.05
"""Seconds that a worker waits for them at most, and between two looks."""


def owners_to_load(config: pytest.Config, workers: int) -> int:
    """How many of this controller's workers will load networks as owners of devices."""
    if not config.stash.get(UNSEEN, None):
        return 0
    from spqr_checks.runtime.devices import devices

    return len(devices(measuring_session(config).run.settings, workers))


def yield_to_owners(config: pytest.Config) -> None:
    """A worker that owns no device at first waits, before it collects, until the owners are ready.

    Whatever it does before only takes time from them.
    """
    told = config.workerinput  # type: ignore[attr-defined]
    owners, number = told.get(COLD, 0), int(told["workerid"].removeprefix("gw"))
    if owners and number >= owners:
        _wait_for(Path(told[TOLD]), _SOUND, *map(_READY.format, range(owners)))


def while_others_start(config: pytest.Config) -> None:
    """Before the first test: the controller's last look; owners of devices begin.

    Raises:
        pytest.UsageError: for networks that do not fit their files; nothing has been made by then.
    """
    if is_worker(config):
        told = config.workerinput  # type: ignore[attr-defined]
        if told.get(COLD) and has_session(config) and measuring_session(config).computes:
            import spqr_checks.models.pipelines  # noqa: F401

            folder = Path(told[TOLD])
            with suppress(OSError):  # the run has ended
                (folder / _READY.format(told["workerid"].removeprefix("gw"))).touch()
            if _wait_for(folder, _SOUND):
                measuring_session(config).work_ahead()
    elif config.stash.get(UNSEEN, None):
        from spqr_checks.preflight import look_at_networks
        from spqr_checks.reports.text import lines

        try:
            look_at_networks(measuring_session(config), config.stash[UNSEEN])
        except UserError as error:
            raise pytest.UsageError(lines(str(error))) from None
        (config.stash[TOLD_IN] / _SOUND).touch()


def _wait_for(folder: Path, *names: str) -> bool:
    """Whether such files are there, soon, in the folder of a run that has not ended."""
    limit = time.monotonic() + _LONGEST
    while not all((folder / name).exists() for name in names):
        if not folder.is_dir() or time.monotonic() > limit:
            return False
        time.sleep(_PAUSE)
    return True
