"""What holds for every guard: how it is named, and that no answer is an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import GuardError, JudgeError, UserError
from spqr_checks.guards.base import Answer, CheckedGuard, TrainingRequest
from spqr_checks.guards.folder import FILE, WEIGHTS, best_threshold, read_record, split
from spqr_checks.guards.registry import GUARDS, guard_recipes, load_guards
from spqr_checks.models.sources import resolve, source_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
CONCEPTS = ("hazard", "red triangle")
TRAINED = ("embedding-distance", "latent-guard", "guardt2i")
Trained = Callable[[str], Path]


def answers(spec: str, prompts: Sequence[str], **tables: Any) -> list[Answer]:
    (guard,) = load_guards([spec], CONCEPTS, "cpu", tables)
    return guard.answer(prompts)


class TestNames:
    @pytest.mark.parametrize("name", TRAINED)
    def test_a_trained_guard_names_its_folder(self, name: str) -> None:
        for spec in (name, f"{name}="):
            with pytest.raises(UserError, match=f"write {name}=DIR, which `spqr guard train"):
                guard_recipes([spec], CONCEPTS, {})

    def test_an_unknown_option_is_answered_with_those_there_are(self) -> None:
        with pytest.raises(UserError, match="unknown option 'limit'\nits options: threshold"):
            guard_recipes(["latent-guard=x"], CONCEPTS, {"latent-guard": {"limit": 1}})

    def test_a_table_of_no_guard_is_refused(self) -> None:
        with pytest.raises(UserError, match="unknown guard 'latent'"):
            guard_recipes(["blocklist"], CONCEPTS, {"latent": {}})

    @pytest.mark.parametrize("name", TRAINED)
    def test_a_folder_without_a_record_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"{FILE} is missing"):
            guard_recipes([f"{name}={tmp_path}"], CONCEPTS, {})

    @pytest.mark.heavy
    def test_the_folder_of_another_guard_is_refused(self, trained: Trained) -> None:
        folder = trained("latent-guard")
        with pytest.raises(UserError, match="holds a latent-guard, not a guardt2i"):
            guard_recipes([f"guardt2i={folder}"], CONCEPTS, {})


class Fixed:
    def __init__(self, said: Any) -> None:
        self.said = said

    def answer(self, prompts: Sequence[str]) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        ([], "gave 0 answers for 2 prompts"),
        ([Answer(True, 1.0)] * 3, "gave 3 answers for 2 prompts"),
        ([Answer(True, 1.0), Answer(False, float("nan"))], "prompt 1: .* is no answer"),
        ([Answer(1, 1.0), Answer(False, 0.0)], "prompt 0: .* is no answer"),  # type: ignore[arg-type]
        ([None, None], "failed on 2 prompts"),
        (None, "failed on 2 prompts"),
    ],
)
def test_a_guard_that_does_not_answer_is_an_error_of_the_cell(said: Any, problem: str) -> None:
    with pytest.raises(GuardError, match=f"guard mine.*{problem}"):
        CheckedGuard(Fixed(said), "mine").answer(["a", "b"])
    assert issubclass(GuardError, JudgeError)  # which no cell survives


class TestRecipes:
    def test_it_holds_options_concepts_and_the_digests_of_all_files(self, trained: Trained) -> None:
        (recipe,) = guard_recipes([f"latent-guard={trained('latent-guard')}"], CONCEPTS, {})
        files = set(recipe["source"]["files"])  # type: ignore[index, call-overload]
        assert files >= {FILE, WEIGHTS, "text_encoder/model.safetensors"}
        assert recipe["concepts"] == list(CONCEPTS)
        assert recipe["options"] == {"threshold": None}

    def test_another_threshold_is_another_guard(self, trained: Trained) -> None:
        spec = f"latent-guard={trained('latent-guard')}"
        one, other = (
            guard_recipes([spec], CONCEPTS, {"latent-guard": {"threshold": t}}) for t in (1.0, 2.0)
        )
        assert one != other

    def test_the_model_that_compares_texts_and_the_kind_of_device_decide_answers(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        spec, clip = f"guardt2i={trained('guardt2i')}", tmp_path / "clip"
        shutil.copytree(resolve("miniature:clip"), clip)
        table = {"guardt2i": {"similarity": str(clip)}}
        (one,) = guard_recipes([spec], CONCEPTS, table)
        assert source_recipe(str(clip)) in one.values()
        config = json.loads((clip / "config.json").read_text(encoding="utf-8"))
        (clip / "config.json").write_text(json.dumps(config | {"note": 1}), encoding="utf-8")
        (other,) = guard_recipes([spec], CONCEPTS, table)
        assert one != other
        assert other == guard_recipes([spec], CONCEPTS, table, "cpu:1")[0]
        assert other != guard_recipes([spec], CONCEPTS, table, "cuda:0")[0]
        with pytest.raises(UserError, match="neither an existing folder nor a Hub id"):
            guard_recipes([spec], CONCEPTS, {"guardt2i": {"similarity": "no such folder"}})

    @pytest.mark.parametrize("name", TRAINED)
    def test_equal_trainings_write_equal_bytes(
        self, name: str, trained: Trained, request_of: TrainingRequest, tmp_path: Path
    ) -> None:
        from guard_sizes import SIZES

        from spqr_checks.guards.registry import parse

        kind = GUARDS.get(name)
        assert kind.train is not None
        kind.train(request_of, parse(kind, name, SIZES[name], training=True), tmp_path)
        assert kind.contents(str(tmp_path)) == kind.contents(str(trained(name)))


class TestThreshold:
    @pytest.mark.parametrize("name", TRAINED)
    def test_the_option_comes_before_the_training_s(self, name: str, trained: Trained) -> None:
        spec, prompts = f"{name}={trained(name)}", ["a red hazard", "a green moon"]
        low, high = (answers(spec, prompts, **{name: {"threshold": t}}) for t in (-1e6, 1e6))
        assert [a.blocked for a in low] == [True, True]
        assert [a.blocked for a in high] == [False, False]

    @given(
        st.lists(st.integers(-9, 9), min_size=1, max_size=12),
        st.lists(st.integers(-9, 9), min_size=1, max_size=12),
    )
    def test_no_other_threshold_tells_more_apart(
        self, harmful: list[int], benign: list[int]
    ) -> None:
        def youden(cut: float) -> float:
            blocked = sum(score > cut for score in harmful) / len(harmful)
            return blocked + sum(score <= cut for score in benign) / len(benign)

        best = youden(best_threshold(harmful, benign))
        assert all(best >= youden(cut) - 1e-9 for cut in [-10, *harmful, *benign])

    def test_it_is_set_on_prompts_that_were_not_learned(self, request_of: TrainingRequest) -> None:
        learned, tested = split(request_of)
        assert {text for _, text in learned.harmful}.isdisjoint(t for _, t in tested.harmful)
        assert set(learned.benign).isdisjoint(tested.benign)
        assert len(learned.benign) + len(tested.benign) == len(request_of.benign)

    @pytest.mark.parametrize("name", TRAINED)
    def test_the_record_counts_what_the_guard_answers(
        self, name: str, trained: Trained, request_of: TrainingRequest
    ) -> None:
        _, tested = split(request_of)
        (guard,) = load_guards([f"{name}={trained(name)}"], (), "cpu", {})
        harmful = guard.answer([text for _, text in tested.harmful])
        benign = guard.answer(tested.benign)
        counts = (
            *(sum(a.blocked for a in harmful), len(harmful)),
            *(sum(not a.blocked for a in benign), len(benign)),
        )
        assert read_record(str(trained(name)), name).held_out == counts


@pytest.mark.parametrize("name", ["latent-guard", "guardt2i"])
@pytest.mark.parametrize("damage", ["record", "sizes", "weights", "tensor"])
def test_a_damaged_folder_is_refused(
    name: str, damage: str, trained: Trained, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(trained(name), tmp_path / "guard")
    record = json.loads((folder / FILE).read_text())
    match damage:
        case "record":
            record["threshold"] = "high"
        case "sizes":
            record["training"]["heads"] = 4
            record["training"]["width" if name == "guardt2i" else "joint_width"] = 32
        case "weights":
            (folder / WEIGHTS).write_bytes(b"x" * 100)
        case "tensor":
            tensors = load_file(folder / WEIGHTS)
            tensors.pop(sorted(tensors)[0])
            save_file(tensors, folder / WEIGHTS)
    (folder / FILE).write_text(json.dumps(record))
    with pytest.raises(UserError, match=str(folder)):
        load_guards([f"{name}={folder}"], CONCEPTS, "cpu", {})


def test_a_training_needs_prompts_of_both_kinds() -> None:
    with pytest.raises(UserError, match="there are 1 and 0"):
        TrainingRequest("x", (("hazard", "a hazard"),), ())


class TestBlocklist:
    def test_without_a_file_the_concepts_are_listed(self) -> None:
        prompts = ["a HAZARD sign", "biohazard", "a triangle beside a red dot", "a red square"]
        assert [a.blocked for a in answers("blocklist", prompts)] == [True, False, True, False]

    def test_a_file_lists_phrases_and_comments(self, tmp_path: Path) -> None:
        file = tmp_path / "words.txt"
        file.write_text("# not these\nखतरा\n\nsharp teeth  # a bite\n", encoding="utf-8")
        found = answers(f"blocklist={file}", ["एक लाल खतरा", "teeth, sharp", "a hazard"])
        assert [a.blocked for a in found] == [True, True, False]

    def test_a_file_that_lists_nothing_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "words.txt").write_text("# nothing\n")
        with pytest.raises(UserError, match="lists no phrase"):
            guard_recipes([f"blocklist={tmp_path / 'words.txt'}"], CONCEPTS, {})

    def test_another_word_is_another_guard(self, tmp_path: Path) -> None:
        file = tmp_path / "words.txt"
        recipes = []
        for word in ("moon", "star"):
            file.write_text(word)
            recipes.append(guard_recipes([f"blocklist={file}"], CONCEPTS, {}))
        assert recipes[0] != recipes[1]
