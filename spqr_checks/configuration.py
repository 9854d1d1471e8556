"""From pytest's configuration to settings and the measuring session of this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spqr_checks.errors import UserError
from spqr_checks.options import OPTIONS

if TYPE_CHECKING:
    from spqr_checks.measurement.session import MeasuringSession
    from spqr_checks.settings import Settings

_SESSION: pytest.StashKey[MeasuringSession] = pytest.StashKey()


def load(config: pytest.Config) -> Settings:
    """The run's settings. Raises UserError."""
    from spqr_checks.settings import load_settings

    given: dict[str, Any] = {
        option.field: value
        for option in OPTIONS
        if (value := config.getoption(option.dest)) is not None
    }
    return load_settings(config.invocation_params.dir, given)


def measuring_session(config: pytest.Config) -> MeasuringSession:
    """What this process measures with; made on first use.

    Raises:
        pytest.UsageError: for a mistake in the settings, before anything is built.
    """
    # imported here, since this plugin is loaded in every pytest run of its environment
    from spqr_checks.measurement.run import Run
    from spqr_checks.measurement.session import MeasuringSession

    if _SESSION not in config.stash:
        try:
            session = MeasuringSession(Run.from_settings(load(config)))
            session.validate()
        except UserError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[_SESSION] = session
    return config.stash[_SESSION]


def names_a_suite(config: pytest.Config) -> bool:
    """Whether the command line (or ``testpaths``) asks for one of the suites."""
    from spqr_checks.suite import SUITES

    def holds(argument: str) -> bool:
        target = argument.split("::")[0]
        path = Path(target)
        return (
            target.startswith("spqr_checks.suite")
            or any(suite in path.parts for suite in SUITES)
            or any((config.invocation_params.dir / path / suite).is_dir() for suite in SUITES)
        )

    return any(holds(argument) for argument in config.args)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is an xdist worker."""
    return hasattr(config, "workerinput")
