"""Several judges that answer as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges import clip as clip_module
from spqr_checks.judges.base import JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.judges.registry import computes_on, judge_recipe, load_judge
from spqr_checks.judges.spec import RULES, Rule, combined

CONCEPTS = ("hazard", "bolt")
probabilities = st.floats(0, 1)


class Says:
    """Answers the same for every image, or fails."""

    def __init__(self, request: JudgeRequest) -> None:
        self.request = request

    def judge(self, images: list[Any]) -> list[Verdict]:
        if self.request.source == "broken":
            raise RuntimeError("out of order")
        value = float(self.request.source)
        scores = {"hazard": value, "bolt": value / 2}
        verdict = Verdict(value > self.request.threshold, value, scores)
        return [verdict] * (len(images) - (value == 0.99))


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> None:
    """``clip=0.7`` is a judge that answers 0.7."""
    kind = JudgeKind(clip_module.Options, Says, contents=lambda source, _: {"says": source})
    monkeypatch.setattr(clip_module, "JUDGE", kind)


def answer(rule: str, *values: Any, threshold: float = 0.5) -> Verdict:
    spec = f"{rule}({','.join(f'clip={value}' for value in values)})"
    (verdict,) = load_judge(spec, threshold, CONCEPTS).judge([object()])  # type: ignore[list-item]
    return verdict


@given(st.lists(probabilities, min_size=2, max_size=7), probabilities)
def test_any_is_unsafe_when_one_is(values: list[float], threshold: float) -> None:
    unsafe = combined("any", values) > threshold
    assert unsafe is any(value > threshold for value in values)


@given(st.lists(probabilities, min_size=2, max_size=7), probabilities)
def test_majority_is_unsafe_when_more_than_half_are(values: list[float], threshold: float) -> None:
    unsafe = combined("majority", values) > threshold
    assert unsafe is (2 * sum(value > threshold for value in values) > len(values))


@given(st.lists(probabilities, min_size=2, max_size=7), st.sampled_from(RULES))
def test_every_rule_stays_between_the_members_and_ignores_their_order(
    values: list[float], rule: Rule
) -> None:
    found = combined(rule, values)
    assert min(values) - 1e-12 <= found <= max(values)
    assert combined(rule, values[::-1]) == pytest.approx(found)


@given(probabilities, st.integers(2, 9), st.sampled_from(RULES))
def test_members_that_agree_to_the_bit_decide(value: float, n: int, rule: Rule) -> None:
    assert combined(rule, [value] * n) == pytest.approx(value)
    assert combined(rule, [value] * n) <= value


@pytest.mark.usefixtures("says")
class TestVerdict:
    @pytest.mark.parametrize(
        ("rule", "values", "expected"),
        [
            ("any", (0.2, 0.6, 0.3), 0.6),
            ("any", (0.2, 0.4), 0.4),
            ("majority", (0.9, 0.6, 0.3), 0.6),
            ("majority", (0.9, 0.4, 0.3), 0.4),
            ("majority", (0.9, 0.4), 0.4),
            ("majority", (0.9, 0.8, 0.2, 0.1), 0.2),
            ("mean", (0.9, 0.3), 0.6),
            ("mean", (0.9, 0.1, 0.2), 0.4),
        ],
    )
    def test_is_that_of_the_rule(
        self, rule: str, values: tuple[float, ...], expected: float
    ) -> None:
        verdict = answer(rule, *values)
        assert verdict.probability == pytest.approx(expected)
        assert verdict.unsafe is (expected > 0.5)
        assert verdict.scores["bolt"] == pytest.approx(expected / 2)

    def test_ensembles_hold_ensembles(self) -> None:
        judge = load_judge("any(clip=0.1,majority(clip=0.7,clip=0.8,clip=0.2))", 0.5, CONCEPTS)
        (verdict,) = judge.judge([object()])  # type: ignore[list-item]
        assert verdict.probability == 0.7

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("values", [(0.9, "broken"), ("broken", 0.9), (0.9, 0.8, "broken")])
    def test_a_member_that_fails_is_an_error(self, rule: str, values: tuple[Any, ...]) -> None:
        with pytest.raises(JudgeError, match="clip=broken failed .* out of order"):
            answer(rule, *values)

    @pytest.mark.parametrize("value", ["nan", "1.5"])
    def test_a_member_s_number_that_is_no_probability_is_an_error(self, value: str) -> None:
        with pytest.raises(JudgeError, match="not a probability"):
            answer("any", 0.9, value)

    def test_a_member_that_loses_an_image_is_an_error(self) -> None:
        with pytest.raises(JudgeError, match="clip=0.99 gave 0 answers for 1 images"):
            answer("any", 0.9, 0.99)


@pytest.mark.usefixtures("says")
def test_the_recipe_holds_those_of_the_members() -> None:
    recipe: Mapping[str, Any] = judge_recipe("any(clip=0.1,mean(clip=0.2,clip=0.3))", 0.5, CONCEPTS)
    assert recipe["judge"] == "any"
    assert recipe["members"][0] == judge_recipe("clip=0.1", 0.5, CONCEPTS)
    assert recipe["members"][1] == judge_recipe("mean(clip=0.2,clip=0.3)", 0.5, CONCEPTS)
    assert recipe != judge_recipe("majority(clip=0.1,mean(clip=0.2,clip=0.3))", 0.5, CONCEPTS)


@pytest.mark.usefixtures("says")
def test_options_of_a_member_change_the_recipe_of_the_ensemble() -> None:
    tables = {"clip": {"templates": ["{}"]}}
    spec = "any(clip=0.1,clip=0.2)"
    assert judge_recipe(spec, 0.5, CONCEPTS) != judge_recipe(spec, 0.5, CONCEPTS, tables)


class TestPlaces:
    def test_a_judge_of_the_cpu_is_never_given_another_device(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def load(request: JudgeRequest) -> Says:
            asked.append(request.device)
            return Says(request)

        for device in ("cpu", "any"):
            kind = JudgeKind(JudgeOptions, load, packages=(), device=device)  # type: ignore[arg-type]
            monkeypatch.setattr(clip_module, "JUDGE", kind)
            load_judge("clip=0.5", 0.5, CONCEPTS, "cuda:1")
            asked.append(computes_on("clip=0.5", "cuda:1"))
        assert asked == ["cpu", "cpu", "cuda:1", "cuda:1"]

    def test_an_ensemble_is_of_the_cpu_if_all_its_members_are(self) -> None:
        assert computes_on("nudenet", "cuda") == "cpu"
        assert computes_on("any(nudenet,nudenet=x.onnx)", "cuda") == "cpu"
        assert computes_on("any(nudenet,clip=x)", "cuda") == "cuda"


class TestMissingPackages:
    @pytest.mark.parametrize("call", [load_judge, judge_recipe])
    @pytest.mark.parametrize(
        ("extra", "advice"), [("nudenet", r"'spqr-checks\[nudenet\]'"), (None, "no-such-thing")]
    )
    def test_are_named_with_what_installs_them(
        self, call: Any, extra: str | None, advice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = JudgeKind(JudgeOptions, Says, extra=extra, packages=("no-such-thing",))
        monkeypatch.setattr(clip_module, "JUDGE", kind)
        with pytest.raises(UserError, match=f"needs no-such-thing, .*: pip install {advice}$"):
            call("any(clip=0.1,clip=0.2)", 0.5, CONCEPTS)

    def test_a_table_for_a_judge_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(UserError, match="unknown judge 'nudnet'"):
            judge_recipe("clip=x", 0.5, CONCEPTS, {"nudnet": {}})


class TestInappropriateProbability:
    def test_is_refused_under_other_settings(self) -> None:
        with pytest.raises(UserError, match="defined at threshold 0.5 .* the threshold is 0.4"):
            load_judge("ip=q.safetensors", 0.4, CONCEPTS)
        with pytest.raises(UserError, match="here nudenet has options"):
            load_judge("ip=q.safetensors", 0.5, CONCEPTS, options={"nudenet": {"preset": "strict"}})

    def test_is_nudenet_or_q16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from spqr_checks.judges import nudenet, q16

        asked: list[JudgeRequest] = []

        def load(request: JudgeRequest) -> Says:
            asked.append(request)
            return Says(request)

        monkeypatch.setattr(nudenet, "JUDGE", JudgeKind(nudenet.Options, load, "optional"))
        monkeypatch.setattr(q16, "JUDGE", JudgeKind(q16.Options, load))
        judge = load_judge("ip=0.7", 0.5, CONCEPTS)
        assert [(request.source, request.options) for request in asked] == [
            ("", nudenet.Options(preset="alignguard", thresholds=0.25, channels="bgr")),
            ("0.7", q16.Options(clip="openai/clip-vit-large-patch14")),
        ]
        with pytest.raises(JudgeError, match="nudenet failed"):
            judge.judge([object()])  # type: ignore[list-item]
