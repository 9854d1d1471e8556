"""Which artefacts measuring a cell reads. Light."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import Cell
from spqr_checks.runtime.engines.unit import Unit
from spqr_checks.runtime.units import Batch


def read_by(session: MeasuringSession, cell: Cell, look: int) -> Iterator[Unit]:
    """Units that measuring a cell at some look (and at those before it) asks the engine for.

    Cells whose controls do not hold ask for fewer.
    """
    units, settings, row = session.units, session.run.settings, cell.row
    read: Callable[[Batch], Unit] = {
        "verdicts": units.verdicts,
        "alignment": units.alignment,
        "features": units.features,
    }[row.reads]
    if row.data == "reference":
        yield units.dataset_features(settings.reference, settings.images_reference)
    if row.data == "tuning":
        assert cell.state.tuning is not None
        spec = session.run.datasets[cell.state.tuning.dataset]
        yield units.dataset_features(spec, settings.dataset_limit)
    for draw in session.run.matrix.draws(cell, look):
        for batch in units.batches(draw):
            yield read(batch)
            # where nothing is judged, reports show images of the cell's own state only
            if row.reads == "verdicts" or draw.state == cell.state:
                yield units.images(batch)
