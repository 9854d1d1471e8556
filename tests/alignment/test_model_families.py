"""Every method on every family of models: it works as its page says, or says that it does not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick import QUICK
from real_classes import CLASSES, SMALL, SMALL_TABLES, UNGUIDED, VARIANTS, sampler

from spqr_checks.alignment import registry
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import generate
from spqr_checks.matrix import Cell
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import attached_adapters
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import denoiser_of, named_weights, networks
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.settings import load_settings

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
NAMES = {
    "SD": ("sd1", "sd2"),
    "SDXL": ("sdxl",),
    "SD3": ("sd3",),
    "FLUX": ("flux", "flux-schnell"),
    "PixArt": ("pixart",),
}
RELEASED = {"uce", "rece", "esd", "ca", "sld", "alignguard", "modular-lora", "duo"}
"""What works on every family: one kind of each goes through the suites."""
PROMPTS = ["a red triangle", "a green circle"]


@cache
def documented() -> dict[str, dict[str, str]]:
    """Method → kind → what must be set for it, as the page's table has them."""
    found: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[0].startswith("`"):
            continue
        kinds: dict[str, str] = {}
        for model in re.split("[,;] ", cells[1]):
            name, _, needs = model.partition(" with ")
            kinds |= dict.fromkeys(NAMES[name], needs.strip("`"))
        found |= dict.fromkeys(re.findall("`([^`]+)`", cells[0]), kinds)
    return found


@pytest.fixture(scope="module")
def base(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines of each kind, loaded once; not to be changed."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


@pytest.fixture(scope="module")
def unaligned(base: Callable[[str], Any]) -> Callable[[str], Any]:
    """What the pipelines of each kind draw."""
    return cache(lambda kind: drawn(copy.deepcopy(base(kind)), kind))


def drawn(pipe: Any, kind: str) -> Any:
    if attached_adapters(denoiser_of(pipe)):
        adapters.merge(pipe)
    return np.stack([np.asarray(i) for i in generate(pipe, PROMPTS, [0, 1], sampler(kind))])


def changed(pipe: Any, other: Any) -> set[str]:
    """Networks whose weights differ."""
    theirs = {name: named_weights(network) for name, network in networks(other).items()}
    return {
        name
        for name, network in networks(pipe).items()
        if any(not torch.equal(a, theirs[name][key]) for key, a in named_weights(network).items())
    }


@pytest.fixture(scope="module")
def suites(
    real_class: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], dict[Cell, CellResult]]:
    """Every cell of a small run, measured; what is the base's is made once for each kind."""

    @cache
    def project(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        guidance = "guidance = 1.0" if kind in UNGUIDED else "guidance = 3.0"
        tables = SMALL_TABLES.replace("guidance = 3.0", guidance)
        (folder / "pyproject.toml").write_text(tables, encoding="utf-8")
        return folder

    def measured(kind: str, candidate: Path) -> dict[Cell, CellResult]:
        given = SMALL | {"base": str(real_class(kind)), "candidate": str(candidate)}
        folder = project(kind)
        given |= {"attach": "auto", "store": str(folder / ".spqr")}
        session = MeasuringSession(Run.from_settings(load_settings(folder, given)))
        return {cell: session.checks.measure(cell) for cell in session.run.matrix.cells}

    return measured


def test_the_page_names_every_method() -> None:
    assert documented().keys() == set(registry.METHODS.own()) == QUICK.keys()


@pytest.mark.trains
@pytest.mark.parametrize("kind", [*CLASSES, *VARIANTS])
@pytest.mark.parametrize("name", QUICK)
def test_a_method_works_on_the_families_that_its_page_names(
    base: Callable[[str], Any],
    unaligned: Callable[[str], Any],
    suites: Callable[[str, Path], dict[Cell, CellResult]],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
) -> None:
    method, plain = registry.method(name), base(kind)
    request = make_request(
        harmful=["a red triangle", "a small red triangle"],
        anchors=["a blue triangle", "a small green circle"],
        keep=["a green circle", "a yellow star"],
        sampler=sampler(kind),
    )
    needs, options = documented()[name].get(kind), QUICK[name]
    if needs:
        field, _, value = needs.partition(" = ")
        options = options | {field: int(value)}
    if needs is None:
        monkeypatch.setattr(type(plain), "__call__", None)  # nothing is drawn
        with pytest.raises(UserError, match=name) as caught:
            method.align(plain, request, method.parse(options), tmp_path)
        message = str(caught.value)
        assert "\n" not in message
        assert list(tmp_path.iterdir()) == []
        return
    pipe, again = copy.deepcopy(plain), copy.deepcopy(plain)
    method.align(pipe, request, method.parse(options), tmp_path)
    registry.apply_alignment(again, tmp_path)
    images = drawn(again, kind)
    assert np.array_equal(images, drawn(pipe, kind))
    assert not np.array_equal(images, unaligned(kind))
    # one network at most is another: what is read by itself belongs to the base
    parts = changed(again, plain)
    steers = registry.recorded_guidance(tmp_path) is not None
    trained = (
        "text_encoder"
        if name == "advunlearn"
        else next(
            part for part, network in networks(plain).items() if network is denoiser_of(plain)
        )
    )
    assert parts == (set() if steers else {trained})
    if name not in RELEASED or kind not in CLASSES or kind == "sd2":
        return
    # and the suites measure what was written, as released and after a fine-tuning
    results = suites(kind, tmp_path)
    assert {cell.axis for cell in results} == {"S", "P", "Q", "R"}
    unsafe = {c.state.name: r.value for c, r in results.items() if c.check == "suppression"}
    assert unsafe == {"aligned": 1.0, "aligned+lite.stripes.0": 1.0}
