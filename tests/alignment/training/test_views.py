"""Transformers in trainings: asked, drawn from and trained as their pipelines and families say."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from real_classes import SIZE, sampler

from spqr_checks.alignment import uce
from spqr_checks.alignment.esd import Erasure
from spqr_checks.alignment.method import transformer_family
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.transformer import (
    TransformerView,
    lora_targets,
    trained_weights,
)
from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline

KINDS = ("sd3", "flux", "flux-schnell", "pixart")
CONCEPT, ANCHOR = "a red triangle", "a blue circle"


@pytest.fixture(scope="module")
def loaded(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines, each loaded once; not to be changed."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


def view_of(pipe: Any, kind: str) -> TransformerView:
    return TransformerView(pipe, sampler(kind), transformer_family(pipe, "esd"))


def handed(pipe: Any, kind: str, generator: torch.Generator, steps: int) -> list[Any]:
    """What the pipeline itself hands its transformer in a whole drawing, and is answered."""
    seen: list[Any] = []

    def note(_: Any, given: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        x = given[0] if given else named["hidden_states"]
        seen.append((x, torch.as_tensor(named["timestep"]).expand(len(x)), answer[0]))

    hook = pipe.transformer.register_forward_hook(note, with_kwargs=True)
    pipe(
        CONCEPT,
        num_inference_steps=steps,
        guidance_scale=3.0,
        height=SIZE,
        width=SIZE,
        generator=generator,
        output_type="latent",
        **({"use_resolution_binning": False} if kind == "pixart" else {}),
    )
    hook.remove()
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_partly_drawn_latents_are_those_on_the_pipeline_s_own_way(
    loaded: Callable[[str], Any], kind: str
) -> None:
    pipe, stops = loaded(kind), set()
    view = view_of(pipe, kind)
    for seed in range(3):
        drawing = {"steps": 3, "guidance": 3.0, "margins": (1, 0)}
        x, t = view.draw_partly(
            pipe.transformer,
            view.encode([CONCEPT]),
            torch.Generator().manual_seed(seed),
            **drawing,
        )
        generator = torch.Generator().manual_seed(seed)
        stop = int(torch.randint(1, 3, (1,), generator=generator))
        theirs, times, answer = handed(pipe, kind, generator, 3)[stop]
        size = view.rows, view.columns
        wanted, time = view.family.seen(theirs[-1:], times[-1:], size)
        torch.testing.assert_close(x, wanted)
        torch.testing.assert_close(t, time)
        if kind != "flux":  # which draws with another guidance than it is trained with
            asked = view.predictor(pipe.transformer, x, t, view.encode([CONCEPT]))
            there, _ = view.family.seen(answer[-1:, ..., :], times[-1:], size)
            torch.testing.assert_close(asked, there[:, : asked.shape[1]], atol=1e-5, rtol=1e-4)
        stops.add(stop)
    assert len(stops) > 1


@pytest.mark.parametrize("kind", ["sd3", "pixart"])
def test_no_prompt_is_no_prompt_in_every_embedding(loaded: Callable[[str], Any], kind: str) -> None:
    pipe = loaded(kind)
    view = view_of(pipe, kind)
    theirs = handed(pipe, kind, torch.Generator().manual_seed(0), 2)
    for x, t, answer in theirs:  # guidance has the half without a prompt first
        ours = view.predictor(pipe.transformer, x[:1], t[:1], view.unguided)
        torch.testing.assert_close(ours, answer[:1, : ours.shape[1]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_esd_s_target_is_the_original_s_in_these_families(
    loaded: Callable[[str], Any], make_request: Callable[..., AlignmentRequest], kind: str
) -> None:
    pipe = loaded(kind)
    request = make_request(harmful=[CONCEPT], anchors=[ANCHOR], sampler=sampler(kind))
    training = Erasure(pipe, request, method("esd").parse({"eta": 1.5}))
    lesson, _ = training.answered(training.lesson())
    view = view_of(pipe, kind)
    with torch.no_grad():
        empty, concept = (
            view.predictor(pipe.transformer, lesson.x, lesson.t, view.encode([text]))
            for text in ("", CONCEPT)
        )
    torch.testing.assert_close(lesson.target, empty - 1.5 * (concept - empty))
    assert not torch.allclose(empty, concept)


@pytest.mark.parametrize("kind", KINDS)
def test_variants_train_what_they_are_named_for(loaded: Callable[[str], Any], kind: str) -> None:
    network = loaded(kind).transformer
    parts = transformer_family(loaded(kind), "esd").parts
    of = {
        variant: trained_weights(network, parts, variant)
        for variant in ("x", "x-strict", "u", "u-current", "all")
    }
    text = ("attn2.to_k", "attn2.to_v") if kind == "pixart" else ("attn.add_k_proj", "add_v_proj")
    assert of["x-strict"] < of["x"]
    assert all(any(part in name for part in text) for name in of["x-strict"])
    assert {part for part in text if any(part in name for name in of["x-strict"])} == {*text}
    assert all("attn" in name for name in of["x"])
    assert any("to_q" in name for name in of["x"])
    assert not of["x"] & (of["u"] | of["u-current"])
    assert not any(name == "proj_out.weight" for name in of["u"])
    assert any(".ff." in name for name in of["u"])
    assert of["all"] == {name for name, _ in network.named_parameters()}
    for variant in ("x", "x-strict", "u", "all"):
        targets = lora_targets(parts, variant)
        hit = {t for t in targets if any(n.endswith(f"{t}.weight") for n in of["all"])}
        assert hit == {*targets}
    assert lora_targets(parts, "u") == lora_targets(parts, "u-current")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_uce_has_text_layers_answer_the_concept_as_its_anchor_and_counts_biases_once(
    real_class: Callable[[str], Path],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    kind: str,
) -> None:
    pipe = load_pipeline(str(real_class(kind)))
    request = make_request(
        harmful=[CONCEPT], anchors=[ANCHOR], keep=["a green star"], sampler=sampler(kind)
    )
    view = view_of(pipe, kind)
    readers = uce.text_layers(pipe.transformer, view.family.parts.readers)
    for layer in readers.values():
        if layer.bias is not None:
            layer.bias += 1.0
    inputs = {
        text: uce.text_inputs(pipe, view, [text]) for text in (CONCEPT, ANCHOR, "a green star")
    }
    before = {
        (path, text): layer(inputs[text][path])
        for path, layer in readers.items()
        for text in inputs
    }
    options = {"erase_scale": 1e4, "preserve_scale": 1e4, "lam": 1e-4}
    method("uce").align(pipe, request, method("uce").parse(options), tmp_path)
    for path, layer in readers.items():
        assert len(inputs[CONCEPT][path]) == (
            2 if (kind, path) == ("sd3", "context_embedder") else 1
        )
        now = layer(inputs[CONCEPT][path])
        torch.testing.assert_close(now, before[path, ANCHOR], atol=2e-2, rtol=1e-2)
        assert not torch.allclose(now, before[path, CONCEPT], atol=5e-2)
        kept = layer(inputs["a green star"][path])
        torch.testing.assert_close(kept, before[path, "a green star"], atol=2e-2, rtol=1e-2)


def test_last_words_are_found_and_the_empty_prompt_has_its_first_token(
    loaded: Callable[[str], Any],
) -> None:
    texts = ["a red cat", "a cat", ""]
    for kind in ("sd3", "flux", "pixart"):
        pipe = loaded(kind)
        places = transformer_family(pipe, "uce").last_words(pipe, texts)
        assert (
            places.tolist()
            == {
                "sd3": [[3, 77 + 2], [2, 77 + 1], [0, 77]],
                "flux": [[2], [1], [0]],
                "pixart": [[2], [1], [0]],
            }[kind]
        )


def test_a_transformer_of_no_known_family_is_named(loaded: Callable[[str], Any]) -> None:
    class Other:
        transformer = torch.nn.Linear(1, 1)

    with pytest.raises(UserError, match=r"'esd' knows .* PixArt; this pipeline is a Other"):
        transformer_family(Other(), "esd")  # type: ignore[arg-type]
