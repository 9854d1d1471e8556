"""Everything that a run can be told: one frozen model.

Precedence: command line, then environment (``SPQR_…``), then ``[tool.spqr]`` in pyproject.toml,
then the preset, then the defaults below.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, create_model

from spqr_checks.choices import (
    Chosen,
    Frozen,
    Images,
    Names,
    Numbers,
    Profile,
    Rate,
    Sampler,
    Seed,
    Shard,
)
from spqr_checks.errors import UserError, refuse_all, refused_fields
from spqr_checks.matrix import AXES, LIMITS, Cell
from spqr_checks.project_file import project_table
from spqr_checks.prompts.scenarios import Scenario, joined, outside
from spqr_checks.scoring.protocols import ANCHORED
from spqr_checks.user_files import read_toml

PRESETS = Path(__file__).parent / "presets"
_NOT_MEASURED = {"store", "report", "report_images", "devices", "budget"}
_NOT_MEASURED |= {"baseline", "margins", "baseline_undecided", "shard", "engine", "ray_address"}
_COSINES = {"clip", "open_clip"}
_UNITS = {"s": 1, "min": 60, "h": 3600}


def _seconds(value: Any) -> Any:
    """A duration such as ``90s``, ``30min`` or ``2h``; a bare number is seconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)", value.strip())
    if found is None:
        raise ValueError("a duration such as 90s, 30min or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _alpha(value: Any) -> str:
    """``rank``, a number above 0 as text, or nothing."""
    text = str(value).strip()
    try:
        valid = text in ("", "rank") or 0 < float(text) < math.inf
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("a number above 0, or rank")
    return text


def _from_table(fields: Mapping[str, tuple[float, float]]) -> Any:
    """A model of numbers from 0: field → default and the largest that makes sense."""
    numbers: dict[str, Any] = {
        name: (Annotated[float, Field(ge=0, le=most)], default)
        for name, (default, most) in fields.items()
    }
    return create_model("_FromTable", __base__=Frozen, **numbers)


_Limits: Any = _from_table(
    {limit.field: (limit.default, 100.0 if row.unit == "points" else 1.0) for row, limit in LIMITS}
)
_ByAxis: Any = _from_table({axis.letter: (axis.margin, axis.most) for axis in AXES.values()})


class Thresholds(_Limits):  # type: ignore[misc]
    """What a cell is held against; rates and ratios in [0, 1], drift in percentage points."""


class Margins(_ByAxis):  # type: ignore[misc]
    """How much worse than the baseline a cell of each axis may be, in the units of its cells."""


class Settings(Frozen):
    """Settings of one run; see docs/settings.md for each."""

    preset: str = "auto"
    base: str = "miniature"
    candidate: str = "base"
    adapters: Names = ()
    adapter_scale: float = 1.0
    adapter_alpha: Annotated[str, BeforeValidator(_alpha)] = ""
    safety_checker: bool = False
    guard: Names = ()
    guards: dict[str, dict[str, Any]] = {}
    attach: Literal["auto", "released", "base"] = "auto"
    method: dict[str, dict[str, Any]] = {}
    alignment_prompts: Names = ()
    alignment_languages: Chosen | None = None
    alignment_seed: Seed = 0

    prompts: Names = ()
    prompts_per_group: Annotated[int, Field(ge=1)] | None = None
    prompt_seed: Seed = 0
    doubtful_translations: Literal["skip", "use"] = "skip"
    wrap: Names = ()
    concepts: Chosen | None = None
    languages: Chosen | None = None
    domains: Chosen | None = None

    matrix: Literal["own", "paper"] = "own"
    scenario: dict[Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")], Scenario] = {}

    profiles: Names = ("lite",)
    datasets: Names = ()
    dataset_limit: Annotated[int, Field(ge=2)] | None = None
    seeds: Numbers = (0,)
    profile: dict[str, Profile] = {
        "lite": Profile(trains="lora", epochs=3),
        "moderate": Profile(trains="cross_attention", epochs=8),
        "standard": Profile(trains="denoiser", epochs=20),
    }

    adaptations: Names = ()
    adaptation: dict[str, dict[str, Any]] = {}

    images: Images = 24
    images_lookalike: Images = 24
    # distances are resampled, for which three images are too few
    images_benign: Annotated[Images, Field(ge=4)] = 48
    images_gain: Annotated[Images, Field(ge=4)] = 48
    images_reference: Annotated[Images, Field(ge=2)] = 512
    image_seed: Seed = 0

    attacks: Names = ()
    attack: dict[str, dict[str, Any]] = {}
    attack_prompts: Annotated[int, Field(ge=1)] | None = None
    attack_seed: Seed = 0
    assert_attacks: bool = False

    sampler: Sampler = Sampler()

    judge: str = ""
    judges: dict[str, dict[str, Any]] = {}
    judge_threshold: Rate = 0.5
    judge_device: str = ""
    calibration: str = ""
    clip: str = ""
    adherence: str = "clip"
    features: str = "clip"
    distance: str = "cmmd"
    reference: str = ""

    mode: Literal["sequential", "fixed"] = "sequential"
    max_images: Images = 192
    about: Literal["these-prompts", "prompts-like-these"] = "these-prompts"
    multiplicity: Literal["holm", "benjamini-hochberg", "none"] = "holm"
    inconclusive: Literal["fail", "warn"] = "fail"
    min_tuning_seeds: Annotated[int, Field(ge=1)] = 3

    thresholds: Thresholds = Thresholds()
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    protocol: str = ANCHORED
    min_score: Rate | None = None
    min_coverage: Rate = 0.5

    baseline: str = ""
    margins: Margins = Margins()
    baseline_undecided: Literal["warn", "fail"] = "warn"

    budget: Annotated[float | None, BeforeValidator(_seconds), Field(gt=0)] = None
    engine: Literal["local", "ray"] = "local"
    ray_address: str = "auto"
    shard: Shard = ""
    store: str = ".spqr"
    report: str = "spqr-report"
    report_images: Literal["blurred", "sharp", "none"] = "blurred"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "cpu"
    devices: Names = ()
    offload: Literal["none", "model", "sequential"] = "none"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    _said: dict[str, str] = PrivateAttr(default_factory=dict)

    def said(self, field: str) -> str:
        """Where a setting was said: its option, variable, or file and line; "" for a default."""
        return self._said.get(field, "")

    def blamed(self, field: str, problem: str) -> str:
        """A problem of a setting, with where that was said."""
        where = self.said(field)
        return f"{where}: {problem}" if where else problem

    @property
    def looks(self) -> int:
        """How often a cell may be looked at, each time with as many images more."""
        return math.ceil(self.max_images / self.images) if self.mode == "sequential" else 1

    def threshold(self, cell: Cell) -> float:
        """What the cell's value is held against, in its unit."""
        return float(getattr(self.thresholds, cell.threshold_field))

    def measured(self) -> dict[str, Any]:
        """The settings that decide what a scorecard says.

        Where it is kept, and what it is compared with afterwards, is left out.
        """
        follow = {"datasets", "languages", "domains", "wrap"}  # from the scenarios
        implied = {"scenario"} if self.matrix == "own" else follow
        return self.model_dump(mode="json", exclude=_NOT_MEASURED | implied)


ENVIRONMENT = {
    field: f"SPQR_{field.upper()}"
    for field in ["base", "candidate", "attach", "store", "report", "device", "dtype", "min_score"]
}


def load_settings(
    folder: Path,
    command_line: Mapping[str, Any],
    measures: bool = True,
    places: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Combines all sources.

    Args:
        folder: where pyproject.toml is looked for (there and in its parents).
        command_line: dotted field names (``thresholds.unsafe``) and their raw values.
        measures: whether judges, prompts and data for measuring must be given.
        places: by field, where its value was really said, if not by its own option; empty where
            no place is to be named.

    Raises:
        UserError: for an unknown preset or field, or values that no run can have, all at once.
    """
    project, said = project_table(folder)
    environment = {
        field: os.environ[name] for field, name in ENVIRONMENT.items() if os.environ.get(name)
    }
    given = _merge(_merge(project, _nested(environment)), _nested(command_line))
    said |= {field: ENVIRONMENT[field] for field in environment}
    said |= {field: flag_of(field) for field in command_line} | dict(places)
    preset = str(given.get("preset", "auto"))
    if preset == "auto":
        preset = _preset_for(given.get("base", Settings().base))
    try:
        chosen = _preset_table(preset)
    except UserError as error:
        refuse_all([f"{_nearest(said, ['preset'])}: {error}"])
    values = _merge(_defaults(), _merge(chosen, given))
    values["preset"] = preset
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        refuse_all(
            f"{_nearest(said, place)}: {problem}"
            for place, problem in refused_fields(error, "setting")
        )
    if settings.devices and not said.get("device"):
        # what decides bytes is the kind; which of them, each worker's own
        kind = settings.devices[0].partition(":")[0]
        settings = settings.model_copy(update={"device": kind})
    settings._said.update(said)
    if settings.matrix == "paper":
        refuse_all(settings.blamed(*one) for one in outside(settings.scenario, given))
        settings = settings.model_copy(update=joined(settings.scenario.values(), settings.prompts))
    if measures:
        refuse_all(settings.blamed(field, problem) for field, problem in _problems(settings))
    return settings


_LIMIT_FLAGS = {
    f"thresholds.{limit.field}": f"{'max' if row.direction == 'at_most' else 'min'}-{limit.field}"
    for row, limit in LIMITS
}


def flag_of(field: str) -> str:
    """The option that sets a field: ``--spqr-max-unsafe`` for ``thresholds.unsafe``."""
    name = _LIMIT_FLAGS.get(field, field)
    return f"--spqr-{name.replace('_', '-').replace('.', '-')}"


def _nearest(said: Mapping[str, str], place: Sequence[str | int]) -> str:
    """Where the innermost table or value that holds a place was said."""
    names = [str(part) for part in place]
    paths = (".".join(names[:n]) for n in range(len(names), 0, -1))
    return next((said[path] for path in paths if said.get(path)), "settings")


def _defaults() -> dict[str, Any]:
    """Nested defaults, so that a preset may change one field of a profile."""
    defaults = Settings()
    return {
        "profile": {
            name: profile.model_dump(exclude_defaults=True) | {"trains": profile.trains}
            for name, profile in defaults.profile.items()
        }
    }


def _preset_for(base: Any) -> str:
    """The preset that names this base, or what it is a variant of; else that of released models."""
    paths = sorted(PRESETS.glob("*.toml"))
    own = str(base).partition(":")[0]  # of ``miniature:uneven`` the preset is the miniature's
    return next((path.stem for path in paths if read_toml(path).get("base") == own), "release")


def _preset_table(name: str) -> dict[str, Any]:
    if name == "none":
        return {}
    known = {path.stem: path for path in sorted(PRESETS.glob("*.toml"))}
    if name not in known:
        raise UserError(f"unknown preset {name!r}; there are: none, {', '.join(known)}")
    return read_toml(known[name])


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        for part in reversed(dotted.split(".")):
            value = {part: value}
        nested = _merge(nested, value)
    return nested


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, table by table."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """What no single value is to blame for: the setting to change, and what is wrong."""
    for name in settings.profiles:
        if name not in settings.profile:
            known = ", ".join(sorted(settings.profile))
            yield "profiles", f"unknown fine-tuning profile {name!r}; there are: {known}"
    for field, what in (
        ("judge", "--spqr-judge, for example classifier=PATH"),
        ("clip", "--spqr-clip, a CLIP model's path or Hub id"),
        ("prompts", "--spqr-prompts, a prompt file"),
        ("reference", "--spqr-reference, a folder of reference images"),
    ):
        if field == "clip" and "clip" not in (settings.adherence, settings.features):
            continue  # both bring a model of their own
        if not getattr(settings, field):
            said = f"no {field} given for base {settings.base!r}: set {what}, or choose a preset"
            yield field, said
    if settings.offload != "none" and settings.device.split(":")[0] == "cpu":
        yield (
            "offload",
            f"offload = {settings.offload!r} moves weights between main memory and an accelerator, "
            "but the device is the CPU; set --spqr-device, or leave offload out",
        )
    if settings.profiles and not settings.datasets:
        yield (
            "datasets",
            "no fine-tuning data given: set --spqr-datasets to a folder of captioned images, or "
            "--spqr-profiles '' to measure without fine-tuning",
        )
    if settings.profiles and not settings.seeds:
        yield (
            "seeds",
            "no fine-tuning seed given: give one or more, or set --spqr-profiles '' to measure "
            "without fine-tuning",
        )
    if settings.distance == "cmmd" and settings.features.partition("=")[0].strip() != "clip":
        yield (
            "distance",
            f"distance cmmd is defined on CLIP's embeddings, not on features "
            f"{settings.features!r}: set --spqr-distance to kid or fid",
        )
    adherence = settings.adherence.partition("=")[0].strip().replace("-", "_")
    if settings.protocol != ANCHORED and adherence not in _COSINES:
        yield (
            "protocol",
            f"protocol {settings.protocol!r} takes the cosine of a CLIP model for P, not "
            f"{settings.adherence!r}: set --spqr-adherence to clip or open_clip",
        )
