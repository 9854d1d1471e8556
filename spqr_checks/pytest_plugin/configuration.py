"""From pytest's configuration to settings and the measuring session of this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.options import given

if TYPE_CHECKING:
    from spqr_checks.checks.session import MeasuringSession
    from spqr_checks.runtime.devices import Worker
    from spqr_checks.scoring.scorecard import Scorecard
    from spqr_checks.settings import Settings
    from spqr_checks.store.uses import Uses

STARTED = "spqr_started"
"""What the controller tells its workers: when the run began (``time.time()``)."""
FAILED = "spqr_failed"
"""What the controller tells its workers: which units a cluster could not make, and why."""
LOOKED = "spqr_looked"
"""What the controller tells its workers: whether it has looked at all that is known beforehand."""
UNSEEN: pytest.StashKey[set[str]] = pytest.StashKey()
"""Networks that the controller holds against their files while workers start."""
MADE: pytest.StashKey[dict[str, tuple[str, str]]] = pytest.StashKey()
BEGUN: pytest.StashKey[float] = pytest.StashKey()
"""When the run began; set by whoever knows that it was before pytest did."""
_SELECTED: pytest.StashKey[set[str]] = pytest.StashKey()
_SESSION: pytest.StashKey[MeasuringSession] = pytest.StashKey()
_USES: pytest.StashKey[Uses] = pytest.StashKey()
_BASELINE: pytest.StashKey[Scorecard | None] = pytest.StashKey()


def measuring_session(config: pytest.Config) -> MeasuringSession:
    """What this process measures with; made on first use.

    Raises:
        pytest.UsageError: for a mistake in the settings, before anything is built.
    """
    if _SESSION not in config.stash:
        with _garbage_left():
            _make_session(config)
    return config.stash[_SESSION]


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Modules make no garbage, and looking for it takes a tenth of the time to load them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _make_session(config: pytest.Config) -> None:
    # imported here, since this plugin is loaded in every pytest run of its environment
    from spqr_checks.settings import load_settings
    from spqr_checks.store.uses import Uses

    try:
        settings = load_settings(config.invocation_params.dir, given(config.getoption))
        session = _session(config, settings)
        if _looks_later(config, settings) and not config.getoption("collectonly"):
            from spqr_checks.preflight import unseen_networks

            # before what is looked at counts as used
            config.stash[UNSEEN] = unseen_networks(session)
    except UserError as error:
        from spqr_checks.reports.text import lines

        raise pytest.UsageError(lines(str(error))) from None
    if settings.shard:
        from spqr_checks.estimate.shards import shares

        place, n = map(int, settings.shard.split("/"))
        session.take(shares(session, n)[place - 1])
    if settings.engine == "ray" and is_worker(config):
        _read_only(session, config.workerinput[FAILED])  # type: ignore[attr-defined]
    if not config.getoption("collectonly"):
        config.stash[_USES] = uses = Uses(session.run.store.root, started(config))
        session.run.store.used = uses.note
    session.selected = config.stash.get(_SELECTED, None)
    config.stash[_SESSION] = session


def select(config: pytest.Config, cells: set[str]) -> None:
    """Says which cells this run's tests measure; for others nothing is made beforehand."""
    config.stash[_SELECTED] = cells
    if has_session(config):
        config.stash[_SESSION].selected = cells


def _session(config: pytest.Config, settings: Settings) -> MeasuringSession:
    """Made when all that can be known beforehand is sound; UserError for what is not.

    A worker does not look again at what its controller found sound a moment ago.
    """
    end = None if settings.budget is None else started(config) + settings.budget
    if is_worker(config) and config.workerinput[LOOKED]:  # type: ignore[attr-defined]
        from spqr_checks.checks.session import MeasuringSession
        from spqr_checks.runtime.run import Run

        return MeasuringSession(Run.from_settings(settings), end, _worker(config))
    from spqr_checks.preflight import preflight

    allure = config.getoption("allure_report_dir", None)
    folder = Path(allure) if allure else None
    looks = not config.getoption("collectonly") and not _looks_later(config, settings)
    return preflight(settings, folder, end, looks, _worker(config))


def _looks_later(config: pytest.Config, settings: Settings) -> bool:
    """Whether networks are held against their files while workers start: both take seconds."""
    return config.pluginmanager.has_plugin("dsession") and settings.engine == "local"


def ended(config: pytest.Config) -> None:
    """What this process has used of the store, it uses no more."""
    if _USES in config.stash:
        config.stash[_USES].close()


def has_session(config: pytest.Config) -> bool:
    """Whether this process has made what it measures with, and so found the settings sound."""
    return _SESSION in config.stash


def _worker(config: pytest.Config) -> Worker | None:
    """Which of several xdist workers this is; a crashed one's successor has a higher number."""
    from spqr_checks.runtime.devices import Worker

    if not is_one_of_several(config):
        return None
    told = config.workerinput  # type: ignore[attr-defined]
    number = int(told["workerid"].removeprefix("gw"))
    return Worker(number, told["workercount"], told["testrunuid"])


def make_remotely(config: pytest.Config) -> None:
    """Has a cluster make all that the run's cells read, if the settings say so.

    Raises:
        pytest.UsageError: for a cluster that is not there or cannot help.
    """
    session = measuring_session(config)
    settings = session.run.settings
    if settings.engine != "ray":
        return
    from spqr_checks.checks.remote import make_all
    from spqr_checks.reports.text import lines, one_line

    writer = config.get_terminal_writer()
    end = None if settings.budget is None else started(config) + settings.budget
    try:
        failed = make_all(session, end, lambda said: writer.line(one_line(said)))
    except UserError as error:
        raise pytest.UsageError(lines(str(error))) from None
    config.stash[MADE] = failed
    _read_only(session, failed)


def _read_only(session: MeasuringSession, failed: dict[str, tuple[str, str]]) -> None:
    from spqr_checks.checks.remote import MadeElsewhere

    session.use(MadeElsewhere(session.local(tuple), session.run.store, failed))


def started(config: pytest.Config) -> float:
    """When the run began (``time.time()``), by the controller's clock for all workers."""
    if is_worker(config):
        return float(config.workerinput[STARTED])  # type: ignore[attr-defined]
    return config.stash.setdefault(BEGUN, time.time())


def baseline_card(config: pytest.Config) -> Scorecard | None:
    """The scorecard that the run is held against, if any; read and checked on first use.

    Raises:
        pytest.UsageError: for a file that is no scorecard, or one that this run cannot be
            compared with, before anything is built.
    """
    if _BASELINE not in config.stash:
        from spqr_checks.preflight import read_baseline
        from spqr_checks.reports.text import lines

        try:
            config.stash[_BASELINE] = read_baseline(measuring_session(config))
        except UserError as error:
            raise pytest.UsageError(lines(str(error))) from None
    return config.stash[_BASELINE]


def names_a_suite(config: pytest.Config) -> bool:
    """Whether the command line (or ``testpaths``) asks for one of this package's suites."""
    from spqr_checks.suites import suite_folders

    folders = suite_folders()

    def holds(argument: str) -> bool:
        target = argument.split("::")[0]
        path = (config.invocation_params.dir / target).resolve()
        return target.startswith("spqr_checks.suites") or any(
            folder in (path, *path.parents) or folder.parent == path for folder in folders
        )

    return any(holds(argument) for argument in config.args)


def refuse_suites_elsewhere(config: pytest.Config) -> None:
    """Raises pytest.UsageError where suites are asked for by a name under which there are none.

    They lie in the package only as it is installed from a wheel; a clone has them beside it.
    """
    from spqr_checks.suites import suite_folders

    named = [arg.split("::")[0] for arg in config.args if arg.startswith("spqr_checks.suites")]
    folders = suite_folders()
    if named and folders[0].parent.name != "suites":
        raise pytest.UsageError(
            f"{named[0]} holds no tests in a clone of the repository: type `spqr run`, or\n"
            f"pytest {' '.join(map(str, folders))}"
        )


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is an xdist worker."""
    return hasattr(config, "workerinput")


def is_one_of_several(config: pytest.Config) -> bool:
    """Whether other processes measure cells of this run too, so that devices have owners."""
    return int(getattr(config, "workerinput", {}).get("workercount", 1)) > 1
