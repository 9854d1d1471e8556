"""Every command looks, before its first image, at all that can be known by then.

All that is wrong is said at once, each with where it was said. Nothing is drawn, trained or written
here, and no weight is read; torch is loaded only where an accelerator is asked for, or where a
network will have to be loaded that has drawn or measured nothing in this store yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from spqr_checks.attacks.registry import refuse_scale
from spqr_checks.attacks.search.reach import refuse_unreachable
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError, refuse_all
from spqr_checks.finetuning import datasets
from spqr_checks.hashing import canonical
from spqr_checks.matrix import Adaptation, Cell, State
from spqr_checks.metrics.adherence import ADHERENCES, scale_of
from spqr_checks.metrics.features import FEATURE_KINDS
from spqr_checks.metrics.recipe import adherence_recipe, quality_recipe
from spqr_checks.models import sources
from spqr_checks.models.components import replacement
from spqr_checks.packages import missing
from spqr_checks.reports import SCORECARD, obstacles
from spqr_checks.reports.files import refuse_step_summary
from spqr_checks.reports.json_file import read_scorecard
from spqr_checks.runtime.devices import Worker, kind_of
from spqr_checks.runtime.named_models import METHOD
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.baseline.fit import Plan, first_obstacle
from spqr_checks.scoring.protocols import protocol_named
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.settings import Settings
from spqr_checks.user_files import path_of

_PATHS = ("base", "candidate", "clip", "calibration", "baseline", "reference", "store", "report")
_LISTS = ("adapters", "adaptations", "prompts", "alignment_prompts", "datasets")


class Found:
    """Problems so far; what follows from one that is there already is not said again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._problems: dict[str, str] = {}

    @contextmanager
    def of(self, field: str) -> Iterator[None]:
        """Notes what is raised, as a problem of this setting."""
        try:
            yield
        except UserError as error:
            for problem in error.problems:
                self.note(field, problem)
        except OSError as error:
            self.note(field, f"{error.filename or field}: {error.strerror or error}")

    def note(self, field: str, problem: str) -> None:
        """A problem of this setting."""
        self._problems.setdefault(problem, self._settings.blamed(field, problem))

    @property
    def problems(self) -> list[str]:
        return list(self._problems.values())


def preflight(
    settings: Settings,
    alluredir: Path | None = None,
    deadline: float | None = None,
    measures: bool = True,
    worker: Worker | None = None,
) -> MeasuringSession:
    """What measures under these settings, when all that can be known of them is sound.

    Args:
        alluredir: Allure's folder of results, if the run writes one.
        deadline, worker: see `MeasuringSession`.
        measures: whether networks are held against their files too, which takes torch; not where
            nothing will be made, or where `look_at_networks` follows.

    Raises:
        UserError: everything that is wrong.
    """
    found = Found(settings)
    for field in (*_PATHS, *_LISTS):
        value = getattr(settings, field)
        with found.of(field):
            for name in value if field in _LISTS else (value,):
                path_of(name)
    refuse_all(found.problems)
    _look_at_places(settings, found, alluredir)
    session = None
    with found.of(""):  # who reads prompts says where they were named
        session = MeasuringSession(Run.from_settings(settings), deadline, worker)
    _look_at_models(settings, found)
    if session is not None:
        _look_at_run(session, found)
        if worker is None:  # who compares in the end; workers only measure
            with found.of("baseline"):
                read_baseline(session)
        if not found.problems:
            _look_at_store(session, found)
        if measures and not found.problems:
            _look_at_networks(session, found, unseen_networks(session))
    refuse_all(found.problems)
    assert session is not None
    return session


def unseen_networks(session: MeasuringSession) -> set[str]:
    """Which networks have drawn or measured nothing in this store yet, by these very files.

    They are named by the origin of the images or the kind of readings; attacks may ask for any.
    """
    units, store, cells = session.units, session.run.store, session.run.matrix.cells
    reads = {"verdicts": units.verdicts, "alignment": units.alignment, "features": units.features}
    read = reads if session.run.attacks else {cell.row.reads for cell in cells}
    left = {"base", "aligned", *read}
    for cell in cells:
        if not left:
            break
        for draw in session.run.matrix.draws(cell):
            batch, kind = units.batches(draw)[0], cell.row.reads
            for name, of in ((draw.state.origin, units.images), (kind, reads[kind])):
                if name in left and store.path(of(batch).kind, of(batch).recipe):
                    left.remove(name)
    return left


def look_at_networks(session: MeasuringSession, unseen: set[str]) -> None:
    """The last look of `preflight`, for who has made the session without it; loads torch.

    Args:
        unseen: those to look at, as `unseen_networks` names them.

    Raises:
        UserError: networks that do not fit their files.
    """
    found = Found(session.run.settings)
    _look_at_networks(session, found, unseen)
    refuse_all(found.problems)


def _look_at_places(settings: Settings, found: Found, alluredir: Path | None) -> None:
    for problem in obstacles(path_of(settings.report), alluredir):
        found.note("report", problem)
    with found.of(""):
        refuse_step_summary()
    with found.of("protocol"):
        protocol_named(settings.protocol)
    if settings.engine == "ray":
        if settings.shard:
            found.note("shard", "a cluster shares the work by itself; leave out --spqr-shard")
        with found.of("engine"):
            if find_spec("ray") is None:
                raise missing("engine ray", "ray", extra="ray")
    for field in ("device", "judge_device") if settings.engine == "local" else ():
        with found.of(field):
            _refuse_device(getattr(settings, field) or "cpu")
    if settings.sampler.compile and settings.offload != "none":
        said = f"sampler.compile does not go with offload = {settings.offload!r}"
        found.note("sampler", f"{said}; leave one of them out")
    with found.of("devices"):
        _refuse_several_kinds(settings)
        for name in settings.devices:
            _refuse_device(name)


def _look_at_store(session: MeasuringSession, found: Found) -> None:
    """A store that cannot be written to is enough where nothing has to be made."""
    from spqr_checks.estimate.estimate import plans

    with found.of("store"):
        try:
            session.run.store.check()
        except UserError:
            if not session.run.store.root.is_dir() or plans(session)[-1].missing:
                raise


def _look_at_models(settings: Settings, found: Found) -> None:
    """What no prompt is needed for."""
    with found.of("base"):
        for field, problem in _undrawable(settings, sources.resolve(settings.base)):
            found.note(field, problem)
    for path in settings.adapters:
        with found.of("adapters"):
            sources.source_recipe(path)
    with found.of("candidate"):
        if replaced := replacement(settings.candidate):
            replaced.path()
        elif settings.candidate != "base" and not settings.candidate.startswith(METHOD):
            sources.resolve(settings.candidate)
    with found.of("adherence"):
        adherence_recipe(settings.adherence, settings.clip)
    with found.of("features"):
        quality_recipe(settings.features, settings.clip, settings.distance)
    for field, specs in (("reference", [settings.reference]), ("datasets", settings.datasets)):
        captioned = field == "datasets"  # nothing is learned from the others
        for spec in specs:
            with found.of(field):
                datasets.dataset_recipe(spec, captioned=captioned)
                if len(datasets.load_captions(spec, 2, captioned=captioned)) < 2:
                    raise UserError(f"data set {spec!r} has one image; at least two are needed")


def _look_at_run(session: MeasuringSession, found: Found) -> None:
    states, units = session.states, session.units
    _look_at_attacks(session, found)
    settings, has_method = session.run.settings, states.method_name is not None
    looks: list[tuple[str, Callable[[], object]]] = [
        ("base", lambda: states.base_recipe),
        ("alignment_prompts", lambda: has_method and session.run.alignment_prompts),
        ("candidate", lambda: states.aligned_recipe),
        ("candidate", lambda: (states.attach, states.notes)),
        ("guard", lambda: units.guard_recipes),
        ("judge", lambda: units.judge_recipe),
        ("calibration", lambda: session.checks),
    ]
    for field, look in looks:
        with found.of(field):
            look()
    for label in session.run.datasets:
        with found.of("datasets"):
            states.tuning_captions(label)
    changes: tuple[Adaptation, ...] = ()
    with found.of("adaptations"):
        changes = session.run.matrix.adaptations
    for change in changes:
        with found.of("adaptations"):
            states.recipe(State("aligned", None, change))
            if change.learns:
                states.tuning_captions(change.name)
    if settings.about == "prompts-like-these":
        for group in sorted(set(session.run.prompts.groups)):
            if len(set(session.run.texts(group))) < 2:
                place = "/".join((group.kind, group.concept, group.language, group.domain))
                found.note(
                    "about",
                    f"{place} has one prompt, which says nothing about prompts like it: add "
                    "prompts, or set --spqr-about these-prompts",
                )


def read_baseline(session: MeasuringSession) -> Scorecard | None:
    """The scorecard that the run is held against, if any.

    Raises:
        UserError: for a file that is no scorecard, or one that this run cannot be compared with.
    """
    settings = session.run.settings
    if not settings.baseline:
        return None
    path, own = Path(settings.baseline), Path(settings.report) / SCORECARD
    if own.resolve() in (path.resolve(), (path / SCORECARD).resolve()):
        raise UserError(
            f"{path} would be overwritten by this run's own scorecard.\n"
            "Keep the baseline outside the folder of reports."
        )
    try:
        card = read_scorecard(path)
    except UserError as error:
        raise UserError(f"{error}\nGive the scorecard.json of a complete earlier run.") from None
    obstacle = first_obstacle(card, _plan(session))
    if obstacle is not None:
        raise UserError(
            f"{path}: this run cannot be compared with it: {obstacle}.\n"
            "Measure the baseline's candidate again under the settings of this run."
        )
    return card


def _plan(session: MeasuringSession) -> Plan:
    """What the run will measure, as its scorecard will say it."""
    run, described = session.run, json.loads(canonical(session.describe()))
    texts = {cell.id: _texts(run, cell) for cell in run.matrix.cells}
    settings, base, judges = run.settings, described["base"], described["judges"]
    return Plan(settings.protocol, base, judges, settings.measured(), texts)


def _texts(run: Run, cell: Cell) -> frozenset[str]:
    """Prompts of a cell's images; none for those that show fine-tuning data."""
    groups = [draw.group for draw in run.matrix.draws(cell) if draw.state == cell.state]
    return frozenset(
        text for group in groups if group.kind != "tuning" for text in run.texts(group)
    )


def _look_at_networks(session: MeasuringSession, found: Found, unseen: set[str]) -> None:
    """Networks against their own files."""
    settings = session.run.settings
    looks: dict[tuple[str, str], Callable[[], object]] = {
        ("judge", "verdicts"): session.units.refuse_unloadable_judge,
        ("adherence", "alignment"): lambda: ADHERENCES.refuse_unloadable(
            settings.adherence, settings.clip
        ),
        ("features", "features"): lambda: FEATURE_KINDS.refuse_unloadable(
            settings.features, settings.clip
        ),
    }
    for (field, reading), look in looks.items():
        if reading in unseen:
            with found.of(field):
                look()
    if unseen & {"base", "aligned"}:
        for field, problem in session.states.misfits:
            found.note(field, problem)


def _look_at_attacks(session: MeasuringSession, found: Found) -> None:
    run, settings = session.run, session.run.settings
    with found.of("attacks"):
        for each in run.attacks:
            each.recipe()  # looks at the files that options name
        refuse_scale(run.attacks, scale_of(settings.adherence, settings.clip))
        own = [settings.candidate] * session.states.has_own_pipeline
        for source in (settings.base, *own):
            refuse_unreachable(run.attacks, sources.resolve(source))
        run.matrix  # noqa: B018  reads the files that attacks replay
        if run.attacks and settings.offload != "none":
            found.note("offload", "attacks need the whole model on the device; leave offload out")


def _refuse_device(name: str) -> None:
    """Raises UserError for a device that torch does not see here."""
    if re.fullmatch(r"cpu(:\d{1,3})?", name):
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{name!r} is no device; for example cpu, cuda, cuda:1 or mps") from None
    module = getattr(torch, device.type, None)
    count = module.device_count() if module is not None and module.is_available() else 0
    if (device.index or 0) >= count:
        raise UserError(
            f"device {name!r} is not here: torch {torch.__version__} sees {count} of that kind.\n"
            "Choose another, such as cpu, or see `spqr doctor`."
        )


def _refuse_several_kinds(settings: Settings) -> None:
    """Raises UserError for devices of which one draws other bytes than another."""
    kinds = sorted({kind_of(name) for name in (settings.device, *settings.devices)})
    if settings.devices and len(kinds) > 1:
        raise UserError(
            f"devices of several kinds ({', '.join(kinds)}) draw other bytes: name devices "
            "of one kind, that of --spqr-device"
        )


def _undrawable(settings: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    """Settings of sizes that the autoencoder and the denoiser cannot draw, and why."""
    try:
        config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        grid = 2 ** (len(config["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # of another kind, or damaged, which is said elsewhere
    if (folder / "transformer").is_dir():
        grid *= 2  # latents are taken in patches of two by two
    sizes = {f"sampler.{name}": getattr(settings.sampler, name) for name in ("height", "width")}
    for name in settings.profiles:
        sizes[f"profile.{name}.resolution"] = settings.profile[name].resolution
    for field, size in sizes.items():
        if size is not None and size % grid:
            yield field, f"{field} = {size}: {settings.base} draws multiples of {grid} pixels"
