"""Everything that a run can be told: one frozen model.

Precedence: command line, then environment (``SPQR_…``), then ``[tool.spqr]`` in pyproject.toml,
then the preset, then the defaults below.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, create_model

from spqr_checks.choices import Frozen, Names, Numbers, Profile, Rate, Sampler
from spqr_checks.errors import UserError, refused_field
from spqr_checks.matrix import AXES, LIMITS, Cell

PRESETS = Path(__file__).parent / "presets"
_NOT_MEASURED = {"store", "report", "baseline", "margins", "baseline_undecided", "budget"}
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
    attach: Literal["auto", "released", "base"] = "auto"
    method: dict[str, dict[str, Any]] = {}
    alignment_prompts: Names = ()
    alignment_languages: Names | None = None
    alignment_seed: int = 0

    prompts: Names = ()
    prompts_per_group: Annotated[int, Field(ge=1)] | None = None
    prompt_seed: int = 0
    doubtful_translations: Literal["skip", "use"] = "skip"
    wrap: Names = ()
    concepts: Names | None = None
    languages: Names | None = None
    domains: Names | None = None

    profiles: Names = ("lite",)
    datasets: Names = ()
    dataset_limit: Annotated[int, Field(ge=1)] | None = None
    seeds: Numbers = (0,)
    profile: dict[str, Profile] = {
        "lite": Profile(trains="lora", epochs=3),
        "moderate": Profile(trains="cross_attention", epochs=8),
        "standard": Profile(trains="denoiser", epochs=20),
    }

    images: Annotated[int, Field(ge=1)] = 24
    images_lookalike: Annotated[int, Field(ge=1)] = 24
    images_benign: Annotated[int, Field(ge=1)] = 48
    images_gain: Annotated[int, Field(ge=2)] = 48
    images_reference: Annotated[int, Field(ge=2)] = 512
    image_seed: Annotated[int, Field(ge=0)] = 0
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
    max_images: Annotated[int, Field(ge=1)] = 192
    about: Literal["these-prompts", "prompts-like-these"] = "these-prompts"
    multiplicity: Literal["holm", "benjamini-hochberg", "none"] = "holm"
    inconclusive: Literal["fail", "warn"] = "fail"
    min_tuning_seeds: Annotated[int, Field(ge=1)] = 3

    thresholds: Thresholds = Thresholds()
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    protocol: str = "anchored"
    min_score: Rate | None = None
    min_coverage: Rate = 0.5

    baseline: str = ""
    margins: Margins = Margins()
    baseline_undecided: Literal["warn", "fail"] = "warn"

    budget: Annotated[float | None, BeforeValidator(_seconds), Field(gt=0)] = None
    store: str = ".spqr"
    report: str = "spqr-report"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "cpu"
    offload: Literal["none", "model", "sequential"] = "none"
    threads: Annotated[int, Field(ge=1)] = 1

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
        return self.model_dump(mode="json", exclude=_NOT_MEASURED)


ENVIRONMENT = {
    field: f"SPQR_{field.upper()}"
    for field in ["base", "candidate", "attach", "store", "report", "device", "dtype", "min_score"]
}


def load_settings(folder: Path, command_line: Mapping[str, Any], measures: bool = True) -> Settings:
    """Combines all sources.

    Args:
        folder: where pyproject.toml is looked for (there and in its parents).
        command_line: dotted field names (``thresholds.unsafe``) and their raw values.
        measures: whether judges, prompts and data for measuring must be given.

    Raises:
        UserError: for an unknown preset or field, or a value of the wrong kind.
    """
    project, where = _project_table(folder)
    environment = {
        field: os.environ[name] for field, name in ENVIRONMENT.items() if os.environ.get(name)
    }
    given = _merge(_merge(project, _nested(environment)), _nested(command_line))
    preset = str(given.get("preset", "auto"))
    if preset == "auto":
        preset = "miniature" if given.get("base", "miniature") == "miniature" else "none"
    values = _merge(_defaults(), _merge(_preset_table(preset), given))
    values["preset"] = preset
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {refused_field(error, 'setting')}") from None
    if measures:
        _check(settings)
    return settings


def _defaults() -> dict[str, Any]:
    """Nested defaults, so that a preset may change one field of a profile."""
    defaults = Settings()
    return {
        "profile": {
            name: profile.model_dump(exclude_defaults=True) | {"trains": profile.trains}
            for name, profile in defaults.profile.items()
        }
    }


def _project_table(folder: Path) -> tuple[dict[str, Any], str]:
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            try:
                tables = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{path} cannot be read: not valid TOML: {error}") from None
            return dict(tables.get("tool", {}).get("spqr", {})), f"{path} [tool.spqr]"
    return {}, "settings"


def _preset_table(name: str) -> dict[str, Any]:
    if name == "none":
        return {}
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise UserError(f"unknown preset {name!r}; there are: none, {known}")
    return tomllib.loads(path.read_text(encoding="utf-8"))


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


def _check(settings: Settings) -> None:
    for name in settings.profiles:
        if name not in settings.profile:
            known = ", ".join(sorted(settings.profile))
            raise UserError(f"unknown fine-tuning profile {name!r}; there are: {known}")
    for field, what in (
        ("judge", "--spqr-judge, for example classifier=PATH"),
        ("clip", "--spqr-clip, a CLIP model's path or Hub id"),
        ("prompts", "--spqr-prompts, a prompt file"),
        ("reference", "--spqr-reference, a folder of reference images"),
    ):
        if field == "clip" and "clip" not in (settings.adherence, settings.features):
            continue  # both bring a model of their own
        if not getattr(settings, field):
            raise UserError(
                f"no {field} given for base {settings.base!r}: set {what}, or choose a preset"
            )
    if settings.offload != "none" and settings.device.split(":")[0] == "cpu":
        raise UserError(
            f"offload = {settings.offload!r} moves weights between main memory and an accelerator, "
            "but the device is the CPU; set --spqr-device, or leave offload out"
        )
    if settings.profiles and not settings.datasets:
        raise UserError(
            "no fine-tuning data given: set --spqr-datasets to a folder of captioned images, or "
            "--spqr-profiles '' to measure without fine-tuning"
        )
    if settings.distance == "cmmd" and settings.features.partition("=")[0].strip() != "clip":
        raise UserError(
            f"distance cmmd is defined on CLIP's embeddings, not on features "
            f"{settings.features!r}: set --spqr-distance to kid or fid"
        )
    adherence = settings.adherence.partition("=")[0].strip().replace("-", "_")
    if settings.protocol != "anchored" and adherence not in _COSINES:
        raise UserError(
            f"protocol {settings.protocol!r} takes the cosine of a CLIP model for P, not "
            f"{settings.adherence!r}: set --spqr-adherence to clip or open_clip"
        )
