"""What the setting names becomes adaptations with names of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.adaptations.adapter import Adapter
from spqr_checks.adaptations.chosen import chosen
from spqr_checks.adaptations.few_step import FewStep
from spqr_checks.adaptations.kind import AdaptationKind, Surroundings
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.choices import Profile, Sampler
from spqr_checks.errors import UserError

PROFILES = {"lite": Profile(trains="lora"), "standard": Profile(trains="denoiser")}
RUN = Surroundings(("lite",), PROFILES, {"dots": "miniature:dots"}, (3,), Sampler())


def loras(folder: Path, *names: str) -> str:
    for name in names:
        (folder / f"{name}.safetensors").write_bytes(b"")
    return f"{folder}/*.safetensors"


def kinds(specs: list[str], tables: dict[str, Any] | None = None) -> dict[str, AdaptationKind]:
    return {name: found.kind for name, found in chosen(specs, tables or {}).items()}


def test_every_kind_is_named_after_its_file_and_needs_no_option() -> None:
    for name in ADAPTATIONS.own():
        assert isinstance(kinds([name])[name], AdaptationKind)


def test_options_stand_beside_the_name_or_in_a_table() -> None:
    table = {"two": {"kind": "few-step", "steps": 2}, "few-step": {"guidance": 1.0}}
    found = kinds(["few-step:steps=3", "few-step", "two"], table)
    assert found == {
        "few-step.steps_3": FewStep(steps=3, guidance=1.0),
        "few-step": FewStep(guidance=1.0),
        "two": FewStep(steps=2),
    }


def test_files_are_put_on_alone_and_two_at_a_time_at_every_scale(tmp_path: Path) -> None:
    pattern = loras(tmp_path, "b", "a", "c")
    found = kinds([pattern, "int8"], {"adapters": {"scales": [1.0, 0.5], "alpha": "rank"}})
    alone, pairs = ["a", "b", "c"], ["a+b", "a+c", "b+c"]
    assert list(found) == ["int8", *(n + s for n in (*alone, *pairs) for s in ("", "@0.5"))]
    both = found["a+c@0.5"]
    assert isinstance(both, Adapter)
    assert [Path(file).stem for file in both.files] == ["a", "c"]
    assert (both.scale, both.alpha) == (0.5, "rank")
    assert list(kinds([pattern], {"adapters": {"pairs": False}})) == alone


@pytest.mark.parametrize(
    ("specs", "tables", "said"),
    [
        (["int9"], {}, r"unknown adaptation 'int9'.*Did you mean 'int"),
        (["few-step:steps"], {}, r"'steps' is no option; write few-step:option=value"),
        (["few-step:steps=0"], {}, r"option 'steps': input should be greater.*given: '0'"),
        (["few-step:stop=1"], {}, r"unknown option 'stop'.*its options: steps, guidance"),
        ([], {"mine": {"steps": 2}}, r"unknown adaptation 'mine'"),
        ([], {"adapters": {"scales": []}}, r"'adapters': option 'scales'"),
        ([], {"adapters": {"scales": [0.0]}}, r"an adapter at scale 0 does nothing"),
        (["./nowhere/*.safetensors"], {}, r"no file is named like that"),
        (["./x/a.safetensors", "./y/a.safetensors"], {}, r"two adaptations are called 'a'"),
        (["int8", "few-step", "int8"], {}, r"two adaptations are called 'int8'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    specs: list[str], tables: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){said}"):
        chosen(specs, tables)


@settings(max_examples=25)
@given(st.lists(st.text(min_size=1, max_size=12), max_size=3))
def test_no_text_is_anything_but_adaptations_or_a_user_error(specs: list[str]) -> None:
    try:
        found = chosen(specs, {})
    except UserError:
        return
    assert all(name and not name.isspace() and " " not in name for name in found)


def test_few_steps_are_half_of_the_run_s_unless_given() -> None:
    few = FewStep().within(RUN)
    assert few.sampler(RUN.sampler) == RUN.sampler.model_copy(update={"steps": 25})
    assert FewStep(guidance=2.0, steps=4).within(RUN).sampler(RUN.sampler).guidance == 2.0


def test_few_steps_that_change_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="draws with 50 steps as the run does"):
        FewStep(steps=50).within(RUN)
    assert FewStep(steps=50, scheduler="DDIMScheduler").within(RUN).steps == 50
    drawn = replace(RUN, scheduler="DDIMScheduler")
    assert FewStep(steps=5, scheduler="DDIMScheduler").within(drawn).steps == 5
    with pytest.raises(UserError, match="50 steps as the run does, by the base's DDIMScheduler"):
        FewStep(steps=50, scheduler="DDIMScheduler").within(drawn)
    unguided = replace(RUN, sampler=Sampler(guidance=1.0))
    with pytest.raises(UserError, match="no change"):
        FewStep(steps=50, guidance=0.5).within(unguided)
    assert "has no NoScheduler" in FewStep(scheduler="NoScheduler").misfits({})[0]


def test_a_merge_takes_the_run_s_first_fine_tuning_and_knows_no_other() -> None:
    (merged,) = kinds(["merged"]).values()
    asked = merged.within(RUN).fine_tuning
    assert asked is not None
    assert (asked.of, asked.tuning.name) == ("base", "lite.dots.3")
    (other,) = kinds(["merged:of=candidate:profile=standard:seed=9"]).values()
    asked = other.within(RUN).fine_tuning
    assert asked is not None
    assert (asked.of, asked.tuning.name) == ("aligned", "standard.dots.9")
    (unknown,) = kinds(["merged:profile=light"]).values()
    with pytest.raises(UserError, match="unknown profile 'light'; there are: lite, standard"):
        unknown.within(RUN)
    bare = Surroundings((), PROFILES, {}, (0,), Sampler())
    with pytest.raises(UserError, match="names no profile: set --spqr-profiles"):
        merged.within(bare)
