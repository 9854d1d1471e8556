"""The authors' quirks that ``compat`` repeats, each beside the sound form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from targets import Answering, Weights, no_report, request

from spqr_checks.attacks import diffzoo, mma, unlearndiffatk
from spqr_checks.attacks.diffzoo import DiffZOOOptions
from spqr_checks.attacks.mma import MMAOptions
from spqr_checks.attacks.p4d import ATTACK as P4D
from spqr_checks.attacks.search.encoders import Lead
from spqr_checks.attacks.search.vocabulary import Vocabulary
from spqr_checks.attacks.unlearndiffatk import UnlearnDiffAtkOptions

both = pytest.mark.parametrize("compat", [False, True], ids=["sound", "compat"])


@both
def test_p4d_fills_rows_with_the_first_token(
    compat: bool, tiny_pipeline: StableDiffusionPipeline
) -> None:
    tokenizer = tiny_pipeline.tokenizer
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad := 9)
    rows: list[list[int]] = []
    table = tiny_pipeline.text_encoder.get_input_embeddings()
    options = P4D.options(tokens=3, steps=2, look=2, compat=compat)
    # of the last step, after the unattacked prompt has been encoded for the target
    table.register_forward_pre_hook(lambda _, given: rows.append(given[0][0].tolist()))
    P4D.run(Weights(tiny_pipeline), request(), options, no_report)
    end = rows[-1].index(tokenizer.eos_token_id)
    assert end == 1 + 3
    assert set(rows[-1][end + 1 :]) == {0 if compat else pad}


@both
def test_unlearndiffatk_takes_a_prompt_that_is_unsafe_as_it_is(
    compat: bool, tiny_pipeline: StableDiffusionPipeline
) -> None:
    target = Weights(tiny_pipeline, unsafe=lambda _: 1.0)
    options = UnlearnDiffAtkOptions(tokens=2, times=1, iterations=1, compat=compat)
    found = unlearndiffatk.ATTACK.run(target, request(), options, no_report)
    assert (found.prompt == request().prompt) is compat
    assert (found.evaluations == 0) is compat
    assert found.prompt.endswith(request().prompt)


def slopes(pipe: StableDiffusionPipeline, compat: bool) -> list[set[int]]:
    lead = Lead(pipe, "pooled", "mma")
    ids = Vocabulary(lead.tokenizer, compat=False).ids
    row = ids[:4]
    with torch.no_grad():
        wish = lead.pooled(torch.tensor([lead.ids(request().prompt)]))
    top = mma._promising(lead, row, wish, ids, MMAOptions(top=3, compat=compat))
    return [set(place) for place in top.tolist()]


def test_mma_takes_the_slopes_of_the_place_before(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.text_encoder.get_input_embeddings().weight.data *= 50
    sound, compat = (slopes(tiny_pipeline, compat) for compat in (False, True))
    assert compat[1:] == sound[:-1]
    assert compat[1:] != sound[1:]


def test_mma_drops_rows_that_are_not_read_as_written(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    lead = Lead(tiny_pipeline, "pooled", "mma")
    vocabulary = Vocabulary(lead.tokenizer, compat=True)
    (whole,) = lead.ids("red")
    parts = lead.ids("xq")  # no word of the vocabulary, so that one word is two tokens
    assert len(parts) == 2
    rows = torch.tensor([[whole, whole], parts, [parts[0], parts[0]]])
    assert mma._readable(lead, rows, vocabulary.text).tolist() == [[whole, whole], parts]


@both
def test_diffzoo_aims_at_the_safe_class(compat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Seen(diffzoo.Replacing):
        """Its prompts say how likely words are replaced, and nothing is drawn."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.first = self.z.clone()
            made.append(self)

        def draw(self, z: Any, u: Any, words: Any = None) -> str:
            return str(float((z + 1).mean() / 2))

    monkeypatch.setattr(diffzoo, "Replacing", Seen)
    monkeypatch.setattr(diffzoo, "load_masked", lambda *_: (None, None))
    monkeypatch.setattr(diffzoo, "words_for", lambda *_: (["a", "b"], [["c"], ["d"]]))
    given = {"steps": 3, "directions": 2, "pairs": 1, "width": 0.1, "samples": 1, "successes": 9}
    options = DiffZOOOptions(model="x", compat=compat, **given)
    diffzoo.ATTACK.run(Answering(unsafe=float), request(), options, no_report)
    (vectors,) = made
    assert bool((vectors.z < vectors.first).all() if compat else (vectors.z > vectors.first).all())


@both
def test_diffzoo_s_first_moment_is_not_corrected(compat: bool) -> None:
    step = diffzoo._Adam(0.05, corrected=not compat).step(torch.zeros(2), torch.tensor([3.0, -0.2]))
    moved = 0.005 if compat else 0.05
    torch.testing.assert_close(step, torch.tensor([-moved, moved]))


def test_parts_of_words_are_searched_by_who_repeats_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    tokenizer = tiny_pipeline.tokenizer
    part = tokenizer("xq", add_special_tokens=False).input_ids[0]
    assert part not in Vocabulary(tokenizer, compat=False).ids
    assert part in Vocabulary(tokenizer, compat=True).ids
    assert not set(tokenizer.all_special_ids) & set(Vocabulary(tokenizer, True).ids.tolist())
