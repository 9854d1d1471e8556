"""Attacked prompts as artefacts: what they depend on, and that they follow from it."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
from runs import run_of

import spqr_checks
from spqr_checks.attacks import diffzoo
from spqr_checks.attacks.attack import AttackError
from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import ALIGNED, BASE, State, Tuning
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.runtime.attacks import EMBEDDINGS, FILE, AttackedPrompt, Attacks
from spqr_checks.runtime.units import Batch

GROUP = PromptGroup("harmful", "hazard", "en", "photo")
TUNED = State("aligned", Tuning("lite", "pastel", 0))
OPTIONS: dict[str, dict[str, Any]] = {
    "ring-a-bell": {"tokens": 4, "population": 8, "generations": 4},
    "mma": {"tokens": 4, "steps": 2, "top": 8, "candidates": 8},
    "unlearndiffatk": {"tokens": 2, "times": 2, "iterations": 2, "targets": 2, "images": 2},
    "p4d": {"tokens": 3, "steps": 4, "look": 2, "targets": 2, "images": 1},
    "sneakyprompt": {"queries": 4},
    "ring-a-bell-embedding": {},
    "rece": {},
}
EMBEDDING = ("ring-a-bell-embedding", "rece")


def session_of(folder: Path, base: Path, **settings: Any) -> MeasuringSession:
    given = {
        "attacks": ",".join(OPTIONS),
        "attack": OPTIONS,
        "concepts": "hazard",
        "languages": "en",
        "sampler": {"steps": 2, "guidance": 3.0, "batch": 8},
    }
    return MeasuringSession(run_of(folder, base, "method:uce", **(given | settings)))


def unit_of(session: MeasuringSession, name: str, state: State, number: int = 0) -> Any:
    prompt = session.run.texts(GROUP)[number]
    return session.units.attacks.unit(name, state, GROUP, prompt)


@pytest.mark.heavy
@pytest.mark.parametrize("name", OPTIONS)
def test_an_attack_leaves_a_prompt_and_what_it_took_alike_each_time(
    name: str, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    found = []
    for part in ("one", "other"):
        session = session_of(tmp_path / part, tiny_pipeline_dir)
        unit = unit_of(session, name, ALIGNED)
        folder = session.engine.require(unit)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        said = session.units.attacks.read(unit)
    assert found[0] == found[1]
    assert said.attacked
    assert said.changed
    assert (EMBEDDINGS in found[0]) is said.embedded is (name in EMBEDDING)
    assert (said.attacked != said.prompt) is not said.embedded
    assert said.evaluations > 0
    queries = {"unlearndiffatk": range(4, 7), "p4d": range(3, 6), "sneakyprompt": range(1, 5)}
    assert said.queries in queries.get(name, (0,))


class Chatting:
    """Answers as its seed says."""

    def answer(self, messages: Any, seed: int) -> str:
        return json.dumps({"prompt": f"sign number {seed % 1000}"})


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["diffzoo", "genbreak"])
def test_what_asks_a_language_model_is_found_alike_each_time(
    name: str, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = "spqr_checks.tools.rewriting.chat_model.load_chat"
    monkeypatch.setattr(chat, lambda *_, **__: Chatting())
    monkeypatch.setattr(diffzoo, "load_masked", lambda *_: (None, None))
    monkeypatch.setattr(diffzoo, "words_for", lambda *_: (["a", "b"], [["c", "d"], ["e", "f"]]))
    few = {"diffzoo": {"steps": 1, "directions": 2, "pairs": 2}, "genbreak": {"rounds": 3}}

    def found(part: str, **settings: Any) -> bytes:
        given = {"attacks": f"{name}=miniature:clip", "attack": {name: few[name]}} | settings
        session = session_of(tmp_path / part, tiny_pipeline_dir, **given)
        folder = session.engine.require(unit_of(session, name, ALIGNED))
        return (folder / FILE).read_bytes()

    assert found("one") == found("other")
    assert len({found(f"seed {i}", attack_seed=i) for i in range(2)}) > 1


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("ring-a-bell", True),
        ("ring-a-bell-embedding", True),
        ("mma", True),
        ("unlearndiffatk", False),
        ("rece", False),
        ("sneakyprompt", False),
    ],
)
def test_what_reads_text_encoders_alone_is_found_once_for_all_fine_tunings(
    name: str, shared: bool, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir)
    released, tuned, base = (
        unit_of(session, name, state).recipe for state in (ALIGNED, TUNED, BASE)
    )
    assert (released == tuned) is shared
    assert released != base


def test_the_judge_is_in_the_key_of_what_asks_it(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    def recipes(**settings: Any) -> list[Any]:
        session = session_of(tmp_path, tiny_pipeline_dir, **settings)
        return [unit_of(session, name, ALIGNED).recipe for name in OPTIONS]

    for other in ({"judge_threshold": 0.6}, {"judge_device": "cuda"}):
        changed = [one != two for one, two in zip(recipes(), recipes(**other), strict=True)]
        reading = [ATTACKS.get(name).access == "text-encoder" for name in OPTIONS]
        assert changed == [not one for one in reading]
    assert recipes(judge_device="cpu") == recipes()


def test_an_option_a_seed_and_the_prompt_are_in_the_key(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    def recipe(number: int = 0, **settings: Any) -> Any:
        session = session_of(tmp_path, tiny_pipeline_dir, attacks="mma", **settings)
        return unit_of(session, "mma", ALIGNED, number).recipe

    others = [recipe(1), recipe(attack_seed=1), recipe(attack={"mma": {"tokens": 5}})]
    assert all(other != recipe() for other in others)


@pytest.mark.heavy
def test_embeddings_are_drawn_from_and_not_the_prompt(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, attacks="ring-a-bell-embedding,rece")
    prompts = tuple(session.run.texts(GROUP)[:2])
    shown = {}
    for name in (*EMBEDDING, None):
        batch = Batch(ALIGNED, GROUP, prompts, (0, 0), name)
        folder = session.engine.require(session.units.images(batch))
        shown[name] = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    assert len({image for images in shown.values() for image in images}) == 6


def test_text_and_embeddings_are_not_drawn_together(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir, attacks="ring-a-bell-embedding")
    units = [unit_of(session, "ring-a-bell-embedding", ALIGNED, i) for i in range(2)]
    answers = iter((True, False))
    one = AttackedPrompt("a", "a", 0, 0)
    monkeypatch.setattr(Attacks, "read", lambda *_: replace(one, embedded=next(answers)))
    with pytest.raises(AttackError, match="some prompts became embeddings"):
        session.units.attacks.embeddings(units)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_attacked_prompts import session_of, unit_of
from spqr_checks.matrix import ALIGNED
session = session_of(Path(sys.argv[1]), Path(sys.argv[2]), attacks="unlearndiffatk")
for number in range(2):
    session.engine.require(unit_of(session, "unlearndiffatk", ALIGNED, number))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_attack_goes_on_with_the_prompt_that_it_was_at(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tiny_pipeline_dir)]
    command += [str(here), str(here.parent)]
    variables = {**os.environ, "PYTHONPATH": str(Path(spqr_checks.__file__).parents[1])}
    out, limit = tmp_path / "out", time.monotonic() + 120
    process = forked.start(command, tmp_path, variables, out, tmp_path / "err")
    while not out.is_file() or out.read_text() != "0\n":
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.kill()
    process.join()
    session = session_of(tmp_path, tiny_pipeline_dir, attacks="unlearndiffatk")
    first, second = (unit_of(session, "unlearndiffatk", ALIGNED, number) for number in range(2))
    kept = session.run.store.path(first.kind, first.recipe)
    assert kept is not None
    before = (kept / FILE).stat().st_mtime_ns
    assert session.run.store.path(second.kind, second.recipe) is None
    assert forked.run(command, tmp_path, variables, timeout=120).returncode == 0
    assert (kept / FILE).stat().st_mtime_ns == before
    whole = session_of(tmp_path / "whole", tiny_pipeline_dir, attacks="unlearndiffatk")
    for number, unit in enumerate((first, second)):
        again = whole.engine.require(unit_of(whole, "unlearndiffatk", ALIGNED, number))
        found = session.run.store.path(unit.kind, unit.recipe)
        assert found is not None
        assert (again / FILE).read_bytes() == (found / FILE).read_bytes()
