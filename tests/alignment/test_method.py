"""Options, recipes and records of a method, without any network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spqr_checks.alignment import registry
from spqr_checks.alignment.method import Method, Options, unet_of
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest

MakeRequest = Callable[..., AlignmentRequest]
PIPE: Any = SimpleNamespace(unet=torch.nn.Identity())


class _Options(Options):
    scale: float = 1.0


def nothing(*_: Any) -> None:
    return None


@pytest.mark.parametrize("name", registry.METHODS.names())
def test_an_unknown_option_is_refused_and_the_known_ones_are_listed(name: str) -> None:
    method = registry.method(name)
    with pytest.raises(UserError) as error:
        method.parse({"strenght": 1})
    assert "'strenght'" in str(error.value)
    for option in method.options.model_fields:
        assert option in str(error.value)


def test_a_value_of_the_wrong_kind_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"method 'esd': option 'steps': .*'many'"):
        registry.method("esd").parse({"steps": "many"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_a_scale_that_is_no_scale_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="erase_scale"):
        registry.method("uce").parse({"erase_scale": value})


def test_command_line_text_is_read_as_the_option_s_type() -> None:
    method = registry.method("esd")
    assert method.parse({"steps": "12", "eta": "0.5"}) == method.parse({"steps": 12, "eta": 0.5})


def test_a_recipe_has_the_defaults_filled_in_and_can_be_hashed() -> None:
    method = registry.method("uce")
    recipe = method.recipe(method.parse({}))
    assert recipe["options"]["lam"] == 0.5
    assert digest(recipe) == digest(method.recipe(method.parse({"lam": 0.5})))
    assert digest(recipe) != digest(method.recipe(method.parse({"lam": 0.4})))
    assert set(recipe["versions"]) >= {"torch", "diffusers"}


def test_the_record_names_method_options_and_prompts(
    tmp_path: Path, make_request: MakeRequest
) -> None:
    method = Method("none", _Options, nothing)
    request = make_request()
    method.align(PIPE, request, method.parse({"scale": 2}), tmp_path)
    record = json.loads((tmp_path / "alignment.json").read_text(encoding="utf-8"))
    assert record["name"] == "none"
    assert record["options"] == {"scale": 2.0}
    assert record["prompts"] == request.prompts_digest


def test_a_method_runs_with_the_requested_threads_and_gives_them_back(
    tmp_path: Path, make_request: MakeRequest
) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def run(*_: Any) -> None:
        seen.append(torch.get_num_threads())

    Method("none", _Options, run).align(
        PIPE, make_request(threads=before + 1), _Options(), tmp_path
    )
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_failed_method_leaves_no_record(tmp_path: Path, make_request: MakeRequest) -> None:
    def run(*_: Any) -> None:
        raise UserError("diverged")

    with pytest.raises(UserError):
        Method("none", _Options, run).align(PIPE, make_request(), _Options(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_without_unet_is_refused() -> None:
    with pytest.raises(UserError, match="'uce' needs a pipeline with a UNet"):
        unet_of(object(), "uce")  # type: ignore[arg-type]
