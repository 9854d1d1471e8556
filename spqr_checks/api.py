"""What the fixture ``spqr`` gives to users' own tests; see docs/own-checks.md."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from spqr_checks.checks.own_checks import OwnChecks
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import BudgetError, JudgeError, UserError
from spqr_checks.matrix import ALIGNED, BASE, DESTROYED, Cell, Draw, Origin, State, Tuning
from spqr_checks.prompts.prompt import ALL, PromptGroup
from spqr_checks.reports.text import measured, reason
from spqr_checks.scoring.request import OwnCheck

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T = TypeVar("T")
_CHANGED: tuple[Origin, ...] = ("base", "aligned")
_SHOWN = 5


class Spqr:
    """Quantities of the run's models, which are measured when they are compared with a number.

    Args:
        test: node id of the test that asks.
        family: scored cells of the suites in this run, and tests that make claims.
        record: is given every claim that was measured.
        failed: is given every claim that could not be measured for an error, and why.

    States are given as `tuned` returns them or by name: ``base``, ``aligned``,
    ``lite.general.0``. Names that the run does not know fail the test with the nearest known one.
    """

    def __init__(
        self,
        session: MeasuringSession,
        test: str,
        family: int,
        record: Callable[[OwnCheck], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self._session, self._run = session, session.run
        self._checks = OwnChecks(session, family)
        self._test, self._record, self._failed = test, record, failed
        self._claims = 0

    def unsafe_rate(
        self,
        concept: str | None = None,
        language: str | None = None,
        domain: str | None = None,
        state: State | str = ALIGNED,
    ) -> Quantity:
        """Share of images that the judge flags, from 0 to 1; what is not given means all."""
        __tracebackhide__ = True
        known, where = self._state(state), self._where(concept, language, domain)
        category = self._run.prompts.categories.get(where["concept"], ALL)
        cell = Cell("suppression", known, category=category, **where)
        group = PromptGroup("harmful", *where.values())
        if not self._checks.covers(group):
            self._stop(f"unsafe_rate({_said(**where)})", "the run has no such harmful prompts")
        given = {"concept": concept, "language": language, "domain": domain}
        return self._quantity("unsafe_rate", cell, **given, state=known.name)

    def drift(
        self,
        profile: str | None = None,
        dataset: str | None = None,
        seed: int | None = None,
        adaptation: str | None = None,
    ) -> Quantity:
        """Rise of the unsafe rate by a benign fine-tuning, in percentage points.

        Args:
            adaptation: of another benign change instead, by its name in this run.
        """
        __tracebackhide__ = True
        if adaptation is None:
            state = self.tuned(profile, dataset, seed)
        elif (profile, dataset, seed) == (None, None, None):
            state = self._state(f"aligned+{adaptation}")
        else:
            self._stop("drift", "a change is a fine-tuning or an adaptation, and both are given")
        return self._quantity("drift", Cell("drift", state), state=state.name)

    def adherence(
        self,
        language: str | None = None,
        domain: str | None = None,
        state: State | str = ALIGNED,
    ) -> Quantity:
        """Text-image alignment on benign prompts over that of the base."""
        __tracebackhide__ = True
        known, where = self._state(state), self._where(None, language, domain)
        if not self._checks.covers(PromptGroup("benign", *where.values())):
            self._stop(f"adherence({_said(**where)})", "the run has no such benign prompts")
        given = {"language": language, "domain": domain, "state": known.name}
        return self._quantity("adherence", Cell("adherence", known, **where), **given)

    def quality(self, state: State | str = ALIGNED) -> Quantity:
        """Image quality from 0 (destroyed generator) to 1 (base)."""
        __tracebackhide__ = True
        known = self._state(state)
        return self._quantity("quality", Cell("quality", known), state=known.name)

    def tuned(
        self, profile: str | None = None, dataset: str | None = None, seed: int | None = None
    ) -> State:
        """The candidate after a benign fine-tuning; what is not given is the settings' first."""
        __tracebackhide__ = True
        settings, datasets = self._run.settings, self._run.datasets
        name = self._or_first("profile", profile, settings.profiles)
        label = self._or_first("dataset", dataset, datasets)
        number = self._or_first("seed", seed, settings.seeds)
        self._known("profile", name, settings.profile)
        self._known("data set", label, datasets)
        return State("aligned", Tuning(name, label, number))

    def images(
        self,
        concept: str | None = None,
        language: str | None = None,
        domain: str | None = None,
        state: State | str = ALIGNED,
        kind: str = "harmful",
    ) -> list[Path]:
        """Files of a state's images (of one look), drawn if need be; do not change them.

        Args:
            kind: of the prompts: harmful, lookalike or benign.
        """
        __tracebackhide__ = True
        self._known("kind of prompts", kind, ("harmful", "lookalike", "benign"))
        group = PromptGroup(kind, *self._where(concept, language, domain).values())  # type: ignore[arg-type]
        draw = Draw(self._state(state), group, self._run.matrix.sizes.of(kind))
        found = self._tried("images()", lambda: self._checks.images(draw))
        return [self._run.store.root / image.path for image in found]

    def pipeline(self, state: State | str = ALIGNED) -> DiffusionPipeline:
        """The state as a diffusers pipeline, trained if need be; it is shared, do not change it."""
        __tracebackhide__ = True
        known, states = self._state(state), self._session.states

        def build() -> DiffusionPipeline:
            for unit in states.needs(known):
                self._session.engine.require(unit)
            self._session.engine.claim()
            return states.lend(known)

        return self._tried(f"pipeline({known.name})", build)

    # ---- names -----------------------------------------------------------------------------------

    def _where(
        self, concept: str | None, language: str | None, domain: str | None
    ) -> dict[str, str]:
        __tracebackhide__ = True
        groups = self._run.prompts.groups
        given = {"concept": concept, "language": language, "domain": domain}
        for name, value in given.items():
            if value is not None:
                known = {getattr(group, name) for group in groups} - {ALL}
                self._known(name, value, known)
        return {name: ALL if value is None else value for name, value in given.items()}

    def _state(self, state: State | str) -> State:
        __tracebackhide__ = True
        if isinstance(state, State):
            return state
        named = {s.name: s for s in (BASE, ALIGNED, DESTROYED)}
        changed = [
            *(State(o, tuning) for tuning in self._run.matrix.tunings for o in _CHANGED),
            *(State(o, None, change) for change in self._run.matrix.adaptations for o in _CHANGED),
        ]
        named |= {name: one for one in changed for name in (one.name, one.short)}
        self._known("state", state, named)
        return named[state]

    def _or_first(self, what: str, given: T | None, known: Iterable[T]) -> T:
        __tracebackhide__ = True
        chosen = next(iter(known), None) if given is None else given
        if chosen is None:
            self._stop(what, f"this run fine-tunes nothing, so that a {what} must be given")
        return chosen

    def _known(self, what: str, name: str, known: Iterable[str]) -> None:
        __tracebackhide__ = True
        names = sorted(known)
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1, 0.0)
            hint = f"; do you mean {near[0]!r}?" if near else ""
            self._stop(what, f"this run has no {what} {name!r}{hint}")

    # ---- claims ----------------------------------------------------------------------------------

    def _quantity(self, name: str, cell: Cell, **given: Any) -> Quantity:
        return Quantity(f"{name}({_said(**given)})", cell, self._decide)

    def _decide(self, said: str, cell: Cell, sign: str, threshold: float) -> bool:
        """Whether the claim is shown; whatever is not ends the test."""
        __tracebackhide__ = True
        claim = f"{said} {sign} {threshold:g}"
        above = sign in (">", ">=")
        self._claims += 1
        place = self._claims
        result = self._tried(claim, lambda: self._checks.measure(cell, threshold, above, place))
        result = replace(result, reason=_plain_reason(result.reason, result.verdict, claim))
        self._record(OwnCheck(self._test, claim, result, place))
        if result.verdict == "not_measurable":
            pytest.skip(f"{claim}: {result.reason}")
        if result.verdict == "pass":
            return True
        lines = [
            f"{result.verdict if result.verdict == 'inconclusive' else 'not so'}: {claim}",
            f"value {measured(result)}",
            reason(result),
        ]
        all_are_bad = cell.row.direction == "at_least"
        worst = [image for image in result.images if image.flagged or all_are_bad]
        lines += [f"{self._run.store.root / image.path}" for image in worst[:_SHOWN]]
        text = "\n".join(line for line in lines if line)
        if result.verdict == "inconclusive" and self._run.settings.inconclusive == "warn":
            pytest.skip(text)
        pytest.fail(text)

    def _tried(self, what: str, measure: Callable[[], Any]) -> Any:
        __tracebackhide__ = True
        try:
            return measure()
        except BudgetError as error:
            self._stop(what, f"not measured: {error}; run again to go on")
        except (UserError, JudgeError) as error:
            self._stop(what, str(error))
        except Exception as error:
            self._failed(what, f"{type(error).__name__}: {error}")
            raise

    def _stop(self, what: str, why: str) -> NoReturn:
        __tracebackhide__ = True
        self._failed(what, why)
        pytest.fail(f"error: {why}", pytrace=False)


class Quantity:
    """A quantity to be compared with a number; see `Spqr`.

    ``<`` and ``<=`` hold if the upper bound of its interval shows them, ``>`` and ``>=`` if the
    lower one does; in sequential mode images are drawn until either side is clear.

    Raises:
        TypeError: where it is used as a value, since a value without its interval decides nothing.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, said: str, cell: Cell, decide: Callable[[str, Cell, str, float], bool]
    ) -> None:
        self._said, self._cell, self._decide = said, cell, decide

    def _against(self, sign: str, threshold: object) -> bool:
        __tracebackhide__ = True
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise TypeError(f"{self._said} can be compared with a number only, not {threshold!r}")
        if threshold != threshold or threshold in (float("inf"), float("-inf")):
            raise TypeError(f"{self._said} cannot be compared with {threshold}")
        return self._decide(self._said, self._cell, sign, float(threshold))

    def __lt__(self, threshold: object) -> bool:
        __tracebackhide__ = True
        return self._against("<", threshold)

    def __le__(self, threshold: object) -> bool:
        __tracebackhide__ = True
        return self._against("<=", threshold)

    def __gt__(self, threshold: object) -> bool:
        __tracebackhide__ = True
        return self._against(">", threshold)

    def __ge__(self, threshold: object) -> bool:
        __tracebackhide__ = True
        return self._against(">=", threshold)

    def _refuse(self, *_: object) -> NoReturn:
        __tracebackhide__ = True
        raise TypeError(
            f"{self._said} says nothing by itself: compare it with a number by <, <=, > or >=, "
            "which its interval can show"
        )

    __bool__ = __float__ = __eq__ = __ne__ = _refuse

    def __repr__(self) -> str:
        return self._said


def _said(**given: object) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in given.items() if v not in (None, ALL))


def _plain_reason(text: str, verdict: str, claim: str) -> str:
    """The reason without what the suites would ask for; the claim says what was asked."""
    if verdict in ("pass", "not_measurable"):
        return text
    shown, _, _ = text.removeprefix("inconclusive: ").rpartition(";")
    shown = shown or text
    return f"inconclusive: {shown}; {claim}" if verdict == "inconclusive" else f"{shown}; {claim}"
