"""A run by the paper's scenarios: its fine-tuning sets bear the scenarios' names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.finetuning.datasets import Rendered
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.workloads import FEATURES
from spqr_checks.settings import load_settings

GIVEN = {"matrix": "paper", "candidate": "method:uce", "concepts": "hazard", "profiles": "lite"}


def test_what_every_cell_reads_can_be_made_and_is_priced(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {**GIVEN, "store": str(tmp_path / "store")})
    session = MeasuringSession(Run.from_settings(settings))
    cells = session.run.matrix.cells
    units = {id(unit): unit for cell in cells for unit in session.reads(cell, 1)}
    assert {c.state.tuning.dataset for c in cells if c.state.tuning} == {
        "general",
        "multilingual",
        "artistic",
        "medical",
    }
    works = [unit.work() for unit in units.values() if unit.work is not None]
    assert f"{FEATURES} of data" in {work.name for work in works}


def test_general_and_multilingual_differ_in_the_languages_of_captions(tmp_path: Path) -> None:
    scenarios = load_settings(tmp_path, GIVEN).scenario
    general, multilingual = (Rendered.parse(scenarios[n].data) for n in ("general", "multilingual"))
    assert general.languages == ("en",)
    assert multilingual == replace(general, languages=scenarios["multilingual"].languages)
