"""Guidances as text: every parameter, nothing unknown, found by kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guided import SAMPLER, blend, sld
from pydantic import ValidationError

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance
from spqr_checks.generation.guidance.registry import (
    GUIDANCES,
    from_json,
    load_guidance,
    save_guidance,
)

every = pytest.mark.parametrize("guidance", [sld(), blend(), blend(threshold=0.25)])


def test_every_kind_goes_by_the_name_of_its_file() -> None:
    assert set(GUIDANCES.names()) == {"sld", "safe-latent-blend", "spm", "safree"}
    for kind in GUIDANCES.names():
        assert GUIDANCES.get(kind).model_fields["kind"].default == kind


@every
def test_text_and_back_is_the_same_guidance(guidance: Guidance, tmp_path: Path) -> None:
    save_guidance(guidance, tmp_path)
    assert load_guidance(tmp_path) == guidance
    assert [path.name for path in tmp_path.iterdir()] == ["guidance.json"]
    record = json.loads(guidance.to_json())
    assert set(record) == set(type(guidance).model_fields)


@every
def test_a_file_that_lacks_any_field_is_refused(guidance: Guidance) -> None:
    record = json.loads(guidance.to_json())
    for field in record:
        text = json.dumps({name: value for name, value in record.items() if name != field})
        with pytest.raises(UserError, match=f"here: .*{field}|here: names no kind"):
            from_json(text, "here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strength": 1}, "unknown field 'strength'"),
        ({"scale": -1}, "'scale'"),
        ({"scale": "50"}, "'scale'"),
        ({"warmup": 1.5}, "'warmup'"),
        (
            {"kind": "sdl"},
            "unknown kind of guidance 'sdl'; there are: safe-latent-blend, safree, sld",
        ),
        ({"kind": 3}, "names no kind"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    record = json.loads(sld().to_json()) | change
    with pytest.raises(UserError, match=said):
        from_json(json.dumps(record), "here")


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"kind": "sld", "scale": NaN}'])
def test_what_is_no_guidance_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="here"):
        from_json(text, "here")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_guidance(tmp_path)


def test_every_harmful_prompt_needs_an_anchor() -> None:
    with pytest.raises(ValidationError, match="one anchor is needed"):
        blend(anchors=("a blue square",))


def test_guidance_of_no_strength_does_not_act() -> None:
    assert sld().acts
    assert blend().acts
    assert not sld(scale=0).acts
    assert not blend(weight=0).acts


@pytest.mark.parametrize(
    ("tau", "steps", "first"), [(0, 8, 0), (0.2, 50, 10), (0.7, 10, 7), (0.3, 10, 3), (0.21, 4, 1)]
)
def test_tau_is_a_share_of_the_steps(tau: float, steps: int, first: int) -> None:
    assert blend(tau=tau).first(steps) == first


def test_a_schedule_without_any_steered_step_is_refused(pipe: Any) -> None:
    sld(warmup=3).check(pipe, SAMPLER)
    with pytest.raises(UserError, match="warm-up of 4 steps leaves none of the sampler's 4"):
        sld(warmup=4).check(pipe, SAMPLER)
    blend(tau=0.75).check(pipe, SAMPLER)
    with pytest.raises(UserError, match="tau 0.9 leaves none of the sampler's 4"):
        blend(tau=0.9).check(pipe, SAMPLER)


def test_sld_needs_classifier_free_guidance(pipe: Any) -> None:
    with pytest.raises(UserError, match=r"needs sampler\.guidance > 1, not 1"):
        sld().check(pipe, SAMPLER.model_copy(update={"guidance": 1.0}))


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from spqr_checks.generation.guidance import base, registry; "
        "[registry.GUIDANCES.get(kind) for kind in registry.GUIDANCES.names()]; "
        "assert not {'torch', 'diffusers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
