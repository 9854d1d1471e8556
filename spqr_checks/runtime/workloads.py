"""What the cost of each kind of unit depends on; see `spqr_checks.store.timings`. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.attacks.registry import Chosen
from spqr_checks.choices import Sampler
from spqr_checks.finetuning.schedule import blocks
from spqr_checks.hashing import digest
from spqr_checks.matrix import Tuning
from spqr_checks.settings import Settings
from spqr_checks.store.timings import Work

ALIGNING, TUNING, ADAPTING, DRAWING = "alignment", "fine-tuning", "adaptation", "images"
JUDGED, MATCHED, FEATURES = "judge", "text alignment", "image features"
GUARDED, ATTACKING, DRAWN_FIRST = "guard", "attack", "drawn first"
_READ = {"verdicts": JUDGED, "alignment": MATCHED, "features": FEATURES}


def aligning(settings: Settings, base: str, method: str, options: Mapping[str, Any]) -> Work:
    """An alignment. Time grows with the option ``steps`` where the method has one."""
    steps, batch = options.get("steps"), options.get("batch")
    by = [f"batch {batch}"] if isinstance(batch, int) else []
    return Work(
        name=f"{ALIGNING} {method}",
        by=_by(*by, settings=settings),
        base=base,
        steps=steps if isinstance(steps, int) and steps > 0 else None,
    )


def tuning(settings: Settings, base: str, chosen: Tuning, spec: str, images: int) -> Work:
    """A benign fine-tuning on so many images.

    Raises:
        UserError: for a profile that cannot be trained on them.
    """
    profile = settings.profile[chosen.profile]
    parts = f"×{profile.accumulation}" if profile.accumulation > 1 else ""
    how = [profile.trains, f"batch {profile.batch}{parts}"]
    how += ["checkpointed"] * profile.gradient_checkpointing
    how += [f"{profile.resolution} px"] if profile.resolution else []
    return Work(
        name=f"{TUNING} {chosen.profile}",
        by=_by(*how, *_data(settings, spec), settings=settings),
        base=base,
        steps=sum(block.steps for block in blocks(profile, images)),
    )


def adapting(
    settings: Settings, base: str, kind: str, spec: str, options: Mapping[str, Any]
) -> Work:
    """The training of an adaptation. Time grows with its steps, or those of its profile."""
    training = options.get("training") or {}
    steps, batch = (options.get(name, training.get(name)) for name in ("steps", "batch"))
    how = [f"batch {batch}"] if isinstance(batch, int) else []
    return Work(
        name=f"{ADAPTING} {kind}",
        by=_by(*how, *_data(settings, spec), settings=settings),
        base=base,
        steps=steps if isinstance(steps, int) and steps > 0 else None,
    )


def attacking(settings: Settings, base: str, chosen: Chosen) -> Work:
    """An attack on one prompt."""
    options = f"options {digest(chosen.options.model_dump(mode='json'))[:8]}"
    draws = chosen.attack.access != "text-encoder"
    looks = [_sampler(settings.sampler), settings.judge] if draws else []
    by = _by(options, *looks, settings=settings)
    return Work(name=f"{ATTACKING} {chosen.name}", by=by, base=base, images=1)


def drawing(
    settings: Settings, base: str, images: int, sampler: Sampler, adapted: str = ""
) -> Work:
    """Images from a state.

    Args:
        adapted: the kind of an adaptation under which drawing takes another time.
    """
    by = _by(_sampler(sampler), *[adapted] * bool(adapted), settings=settings)
    return Work(name=DRAWING, by=by, base=base, images=images)


def guarding(settings: Settings, base: str, images: int) -> Work:
    """Images that exist, as guards let them through."""
    by = _by(", ".join(settings.guard), settings=settings)
    return Work(name=GUARDED, by=by, base=base, images=images)


def reading(settings: Settings, base: str, kind: str, images: int) -> Work:
    """What is measured on images from a state; ``kind`` is that of the unit."""
    source = {
        "verdicts": settings.judge,
        "alignment": _metric(settings.adherence, settings),
        "features": _metric(settings.features, settings),
    }[kind]
    device = settings.judge_device if kind == "verdicts" else ""
    by = _by(source, settings=settings, device=device)
    return Work(name=_READ[kind], by=by, base=base, images=images)


def dataset_reading(settings: Settings, base: str, spec: str, images: int | None) -> Work:
    """Features of a data set, which is read, rendered or drawn first."""
    features = _metric(settings.features, settings)
    by = _by(features, "data", *_data(settings, spec), settings=settings)
    return Work(name=f"{FEATURES} of data", by=by, base=base, images=images)


def _data(settings: Settings, spec: str) -> list[str]:
    return [f"{DRAWN_FIRST}, {_sampler(settings.sampler)}"] if spec.startswith("self:") else []


def _metric(spec: str, settings: Settings) -> str:
    return settings.clip if spec == "clip" else spec


def _sampler(sampler: Sampler) -> str:
    guided = "guided" if sampler.guidance > 1 else "unguided"
    size = f"{sampler.height}x{sampler.width}" if sampler.height else "own size"
    return f"{sampler.steps} steps {guided}, {size}"


def _by(*parts: str, settings: Settings, device: str = "") -> str:
    """With what: parts that the work says, and the machine."""
    place = (device or settings.device).split(":")[0]
    return ", ".join([*parts, place, settings.dtype, f"{settings.threads} threads"])
