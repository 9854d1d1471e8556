"""AdvUnlearn: its losses and attacks against the authors', and the text encoder that it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from originals import Texts, descend
from torch import Tensor

from spqr_checks.alignment.advunlearn import AdversarialErasing, with_prefix
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.models.components import Replacement, replace_network
from spqr_checks.models.weights import TEXT_FILE, copy_state

ADV = method("advunlearn")
QUICK: dict[str, Any] = {"steps": 2, "latents": "pool", "pool": 2, "learning_rate": 1e-3}
QUICK |= {"calm_steps": 0}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


def prefixed(pipe: StableDiffusionPipeline, prompt: str, prefix: Tensor) -> Tensor:
    """The encoder's states with embeddings before a prompt, through PyTorch's own embedding."""
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=32, return_tensors="pt").input_ids
    k, longer = prefix.shape[0], ids.clone()
    longer[0, 1 : 1 + k] = 1
    longer[0, 1 + k :] = ids[0, 1 : 32 - k]
    table = pipe.text_encoder.get_input_embeddings()
    rows = table.weight[longer[0]].detach().clone()
    rows = torch.cat([rows[:1], prefix, rows[1 + k :]])[None]
    hook = table.register_forward_hook(lambda *_: rows)
    states = pipe.text_encoder(longer)[0]
    hook.remove()
    return states  # type: ignore[no-any-return]


@pytest.mark.heavy
@pytest.mark.parametrize("attack", ["pgd", "sign"])
def test_steps_and_attacks_are_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    texts: Texts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
) -> None:
    pipe, unet = copy.deepcopy(tiny_pipeline), tiny_pipeline.unet
    request = make_request(concepts=["red triangle"])
    # by the encoder as it is before
    concept, empty, kept = texts(["red triangle"]), texts([""]), texts(request.keep)
    events: list[tuple[str, Any]] = []
    for name in ("noisy", "noisy_like", "noisy_retained"):
        own = getattr(AdversarialErasing, name)

        def note(self: Any, *given: Any, _own: Any = own, _name: str = name, **named: Any) -> Any:
            events.append((_name, _own(self, *given, **named)))
            return events[-1][1]

        monkeypatch.setattr(AdversarialErasing, name, note)
    own_randint = torch.randint

    def randint(*given: Any, **named: Any) -> Tensor:
        drawn = own_randint(*given, **named)
        if given[2] == (1, 1) and given[1] > 100:
            events.append(("words", drawn))
        return drawn

    monkeypatch.setattr(torch, "randint", randint)
    given = {"calm_steps": 1, "attack_steps": 2, "retain_batch": 2, "attack": attack}
    given |= {"attack_rate": 0.5}
    seen: list[float] = []
    options = ADV.parse(QUICK | given)
    ADV.align(tiny_pipeline, request, options, tmp_path, lambda p: seen.append(p.loss))
    events_of = iter(events)
    encoder = pipe.text_encoder.requires_grad_(False)
    trained = [
        p for n, p in encoder.named_parameters() if "encoder.layers" in n or "final_layer" in n
    ]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=1e-3)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    theirs: list[float] = []
    plain: Any = None
    for step in range(2):
        _, (_, x, t) = next(events_of)
        prefix = torch.zeros(0, 16)
        if step:
            _, words = next(events_of)
            start = encoder.get_input_embeddings().weight[words[0]].detach().clone()
            prefix = start.requires_grad_(True)
            attacker = torch.optim.Adam([prefix], lr=0.5)
            for _ in range(2):
                _, (z, s) = next(events_of)
                with torch.no_grad():
                    goal = unet(z, s, concept).sample
                states = prefixed(pipe, "red triangle", prefix)
                loss = F.mse_loss(unet(z, s, states).sample, goal)
                (gradient,) = torch.autograd.grad(loss, [prefix])
                prefix.grad = gradient.sign() if attack == "sign" else gradient
                attacker.step()
            prefix = prefix.detach()
        with torch.no_grad():
            e_0, e_p = unet(x, t, empty).sample, unet(x, t, concept).sample
        states = prefixed(pipe, "red triangle", prefix)
        lesson_x, lesson_t, goal_of_lesson = x, t, e_0 - 1.0 * (e_p - e_0)
        loss = F.mse_loss(unet(x, t, states).sample, goal_of_lesson)
        _, (index, x, t) = next(events_of)
        assert t.tolist() == lesson_t.repeat(2).tolist()  # the lesson's
        with torch.no_grad():
            goal = unet(x, t, kept[index]).sample
        now = pipe.tokenizer(
            [request.keep[i] for i in index.tolist()],
            padding="max_length",
            max_length=32,
            return_tensors="pt",
        )
        retained = F.mse_loss(unet(x, t, encoder(now.input_ids)[0]).sample, goal)
        theirs.append((loss + 0.3 * retained).item())
        with torch.no_grad():
            unattacked = prefixed(pipe, "red triangle", torch.zeros(0, 16))
            plain = F.mse_loss(unet(lesson_x, lesson_t, unattacked).sample, goal_of_lesson)
            plain = float(plain + 0.3 * retained)
        descend(optimiser, loss + 0.3 * retained)
    assert next(events_of, None) is None
    assert seen == pytest.approx(theirs, rel=1e-4)
    assert seen[1] != pytest.approx(plain, rel=1e-3)  # the attack made a difference
    moved = [
        torch.cat([(p - before[n]).detach().flatten() for n, p in one.named_parameters()])
        for one in (tiny_pipeline.text_encoder, encoder)
    ]
    # gradients are so small here that rounding decides some of Adam's steps
    assert F.cosine_similarity(*moved, dim=0) > 0.98
    assert moved[1].norm() > 0.01


@pytest.mark.heavy
def test_only_layers_and_the_last_norm_of_the_text_encoder_change(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    pipe, base = make_pipeline(), make_pipeline()
    options = {"erases": "harmful", "guide": "anchors", "attack_steps": 0, "steps": 3}
    ADV.align(pipe, make_request(), ADV.parse(QUICK | options), tmp_path)
    unet = zip(copy_state(pipe).values(), copy_state(base).values(), strict=True)
    assert all(torch.equal(one, other) for one, other in unet)
    plain = dict(base.text_encoder.named_parameters())
    changed = {
        name for name, p in pipe.text_encoder.named_parameters() if not torch.equal(p, plain[name])
    }
    assert changed
    assert all("encoder.layers" in name or "final_layer_norm" in name for name in changed)
    assert any("final_layer_norm" in name for name in changed)


@pytest.mark.heavy
def test_what_it_writes_is_an_entry_and_a_text_encoder_candidate(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    pipe, entry, candidate = (make_pipeline() for _ in range(3))
    ADV.align(pipe, make_request(), ADV.parse(QUICK | {"attack_steps": 0}), tmp_path)
    apply_alignment(entry, tmp_path)
    replace_network(candidate, Replacement("text_encoder", str(tmp_path / TEXT_FILE)), "float32")
    wanted = encode(pipe, ["a red triangle"]).hidden
    for read in (entry, candidate):
        assert torch.equal(encode(read, ["a red triangle"]).hidden, wanted)
    assert not torch.equal(encode(make_pipeline(), ["a red triangle"]).hidden, wanted)


@pytest.mark.heavy
def test_what_is_retained_is_drawn_to_where_the_lesson_is(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    options = ADV.parse({"sampling_steps": 7, "retain_batch": 2})
    training = AdversarialErasing(tiny_pipeline, make_request(), options)
    assert training.retained is not None
    seen = set()
    for _ in range(8):
        _, _, t = training.noisy()
        index, x, s = training.noisy_retained(training.retained, t)
        assert s.tolist() == t.tolist() * 2
        assert x.shape == (2, 4, 8, 8)
        assert len(index) == 2
        seen |= set(s.tolist())
    assert len(seen) > 2


def test_a_training_that_ends_before_its_first_attack_is_refused() -> None:
    with pytest.raises(UserError, match="lower 'calm_steps', or say attack_steps = 0"):
        ADV.parse({"steps": 200})
    ADV.parse({"steps": 200, "attack_steps": 0})


def test_a_prompt_that_grows_too_long_keeps_its_end() -> None:
    full = torch.tensor([[0, 5, 6, 9], [0, 5, 9, 9]])
    assert with_prefix(full, 1, 7, 9).tolist() == [[0, 7, 5, 9], [0, 7, 5, 9]]


def test_anchors_belong_to_harmful_prompts_and_concepts_need_names(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="needs erases = 'harmful'"):
        ADV.align(tiny_pipeline, make_request(), ADV.parse({"guide": "anchors"}), tmp_path)
    with pytest.raises(UserError, match="names none; say erases = 'harmful'"):
        ADV.align(tiny_pipeline, make_request(concepts=[]), ADV.parse({}), tmp_path)
    assert list(tmp_path.iterdir()) == []
