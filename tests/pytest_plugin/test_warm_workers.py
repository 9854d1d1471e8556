"""What a worker loads in a run that finds everything in its store: each of them pays for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from warm import fill, run

NOTING = """
import json, sys
from pathlib import Path

def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        Path(config.workerinput["workerid"] + ".loaded").write_text(json.dumps(list(sys.modules)))
"""
LIBRARIES = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
LIBRARIES |= {"huggingface_hub", "scipy.stats", "rich", "jinja2", "pandas", "hypothesis"}
"""Of these nothing is asked that a worker of such a run does."""
CONTROLLERS = {"spqr_checks.preflight", "spqr_checks.estimate", "spqr_checks.reports.run_page"}
CONTROLLERS |= {"spqr_checks.reports.markdown", "spqr_checks.reports.json_file"}
"""What was looked at before the workers started, and what is made of their results."""


@pytest.mark.slow
def test_a_worker_loads_neither_what_computes_nor_what_its_controller_does(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "noting.py").write_text(NOTING)
    done = run(tmp_path, "-n2", "-p", "noting", variables={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [set(json.loads(note.read_text())) for note in tmp_path.glob("gw*.loaded")]
    assert len(notes) == 2
    for loaded in notes:
        assert "spqr_checks.checks.session" in loaded, "it measured"
        assert not (LIBRARIES | CONTROLLERS) & loaded
