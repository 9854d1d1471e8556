"""Measures what users' own tests claim, as the suites measure their cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from spqr_checks.checks.session import Checks, MeasuringSession
from spqr_checks.checks.stopping import Stopping, not_measurable
from spqr_checks.matrix import BASE, Cell, Draw
from spqr_checks.prompts.prompt import ALL, PromptGroup
from spqr_checks.runtime.measurements import Flags, Measurements
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.request import spent
from spqr_checks.statistics.evidence import Evidence
from spqr_checks.statistics.intervals import ThresholdVerdict


class OwnChecks:
    """Measures cells that need not be in the run's matrix, against any threshold.

    A cell whose language, domain or concept is ``all`` is measured on the images of all prompt
    groups of the run that it takes in, each as many as a cell of the suites.

    Claims are failed with the error of all cells and claims together in mind. How many claims a
    test will make nobody knows before, so each test that makes claims has the share of a cell, and
    its claims spend that in their order (`spent`). A run's other tests, workers and their order
    change nothing; the scorecard refines the shares as it does those of cells.

    Args:
        family: scored cells of the suites in this run, and tests that make claims.
    """

    def __init__(self, session: MeasuringSession, family: int) -> None:
        self._session, self._family = session, family
        self._pooled = Pooled(session)

    def measure(self, cell: Cell, threshold: float, above: bool, place: int = 1) -> CellResult:
        """The cell's result, with verdict and p-values of the claim.

        Args:
            above: whether the claim is that the value lies above the threshold, not below.
            place: of the claim among those of its test, from 1.

        Raises:
            BudgetError, UserError, JudgeError: nothing was measured; never a verdict.
        """
        run = self._session.run
        for control in self._controls(cell):
            held = self._session.measure(control)
            if held.verdict != "pass":
                return not_measurable(cell, threshold, f"{control.id}: {held.reason}")
        row, thresholds = cell.row, run.settings.thresholds
        limits = [limit.field for limit in (row.limit, row.limit_tuned) if limit is not None]
        own = thresholds.model_copy(update=dict.fromkeys(limits, threshold))
        settings = run.settings.model_copy(update={"thresholds": own})
        turned = above == (cell.row.direction == "at_most")
        stopping = (Turned if turned else Stopping)(settings, self._family / spent(place))
        asked = replace(run, settings=settings)
        result = Checks(asked, self._pooled, self._session.calibration, stopping).measure(cell)
        p = result.p[::-1] if turned and result.p is not None else result.p
        images = self._worst(result)
        self._pooled.show(images)
        return replace(result, p=p, score=None, replicates=(), images=images)

    def covers(self, group: PromptGroup) -> bool:
        """Whether the run has prompts of such a group."""
        return bool(self._pooled.parts(group))

    def images(self, draw: Draw) -> list[ImageRef]:
        """Images of all prompt groups that a draw takes in."""
        found = self._pooled.images(draw)
        self._pooled.show(found)
        return found

    def _controls(self, cell: Cell) -> Iterator[Cell]:
        """Of every prompt group that the cell takes in; others are measured with the cell."""
        run = self._session.run
        if cell.check == "suppression":
            group = PromptGroup("harmful", cell.concept, cell.language, cell.domain)
            for part in self._pooled.parts(group):
                category = run.prompts.categories[part.concept]
                place = (part.concept, category, part.language, part.domain)
                yield Cell("positive_control", BASE, *place)

    def _worst(self, result: CellResult) -> tuple[ImageRef, ...]:
        """Those that speak most against the candidate first."""
        images = result.images
        if result.cell.check == "adherence" and images:
            group = PromptGroup("benign", ALL, result.cell.language, result.cell.domain)
            each = len(images) // len(self._pooled.parts(group))
            scores = self._pooled.adherence(Draw(result.cell.state, group, each))
            order = sorted(range(len(images)), key=lambda i: scores[i])
            return tuple(images[i] for i in order)
        return tuple(sorted(images, key=lambda image: not image.flagged))


class Turned(Stopping):
    """Looks at claims that a value lies on the other side of the threshold."""

    def verdict(self, found: Evidence) -> ThresholdVerdict:
        return super().verdict(found.flipped())


class Pooled(Measurements):
    """Takes ``all`` in a prompt group for every group of the run that it covers."""

    def __init__(self, session: MeasuringSession) -> None:
        super().__init__(session.units, session.engine)
        self._run = session.run

    def parts(self, group: PromptGroup) -> tuple[PromptGroup, ...]:
        if group.kind == "tuning":
            return (group,)

        def covers(part: PromptGroup) -> bool:
            names = ("concept", "language", "domain")
            return all(getattr(group, n) in (ALL, getattr(part, n)) for n in names)

        return tuple(part for part in self._run.matrix.select(group.kind) if covers(part))

    def _draws(self, draw: Draw) -> list[Draw]:
        return [replace(draw, group=part) for part in self.parts(draw.group)]

    def flags(self, draw: Draw) -> Flags:
        found = [super(Pooled, self).flags(part) for part in self._draws(draw)]
        return Flags(
            tuple(flag for flags in found for flag in flags.flagged),
            tuple(image for flags in found for image in flags.images),
            sum(flags.blocked for flags in found),
        )

    def adherence(self, draw: Draw) -> list[float]:
        return [v for part in self._draws(draw) for v in super(Pooled, self).adherence(part)]

    def blocked(self, draw: Draw) -> int:
        return sum(super(Pooled, self).blocked(part) for part in self._draws(draw))

    def images(self, draw: Draw) -> list[ImageRef]:
        return [i for part in self._draws(draw) for i in super(Pooled, self).images(part)]
