"""Scorecards as snapshots of syrupy: a baseline for teams that keep theirs that way.

Needs the extra ``snapshots``; nothing else in this package imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.errors import UserError
from spqr_checks.packages import importing
from spqr_checks.reports.json_file import read_scorecard
from spqr_checks.reports.snapshot_text import differences, snapshot_text
from spqr_checks.scoring.scorecard import Scorecard

with importing("a snapshot of a scorecard", "syrupy", extra="snapshots"):
    from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

if TYPE_CHECKING:
    from syrupy.types import PropertyFilter, PropertyMatcher, SerializableData, SerializedData


class ScorecardSnapshotExtension(SingleFileSnapshotExtension):
    """One TOML file for each snapshot; a scorecard matches by its intervals.

    Asserted is a `Scorecard` or the path of a scorecard.json; see `snapshot_text` for what is
    written and what matches.
    """

    file_extension = "toml"
    _write_mode = WriteMode.TEXT

    def serialize(
        self,
        data: SerializableData,
        *,
        exclude: PropertyFilter | None = None,
        include: PropertyFilter | None = None,
        matcher: PropertyMatcher | None = None,
    ) -> SerializedData:
        """The snapshot's text.

        Args:
            matcher: syrupy always gives one; a scorecard has nothing that it could replace.

        Raises:
            UserError: no file, no scorecard, or an incomplete one; a scorecard is compared whole.
            TypeError: neither a scorecard nor a path.
        """
        if exclude is not None or include is not None:
            raise UserError("a snapshot holds the whole scorecard: give no exclude and no include")
        with _one_line():
            card = data if isinstance(data, Scorecard) else read_scorecard(Path(data))
            return snapshot_text(card)

    def matches(
        self, *, serialized_data: SerializableData, snapshot_data: SerializableData
    ) -> bool:
        """Whether verdicts are equal and intervals overlap. Raises UserError for no snapshot."""
        with _one_line():
            return not differences(str(serialized_data), str(snapshot_data))

    def diff_lines(
        self, serialized_data: SerializedData, snapshot_data: SerializedData
    ) -> Iterator[str]:
        """Only what does not match, instead of every letter that differs."""
        if not snapshot_data:
            yield "write it with pytest --snapshot-update"
            return
        yield from differences(str(serialized_data), str(snapshot_data))


@contextmanager
def _one_line() -> Iterator[None]:
    """syrupy shows the last line of an error, so all of it goes there."""
    try:
        yield
    except UserError as error:
        raise UserError(" ".join(str(error).splitlines())) from None
