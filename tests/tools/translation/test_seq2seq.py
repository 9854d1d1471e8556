"""Translation models of the real classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from spqr_checks.errors import UserError
from spqr_checks.tools.translation.seq2seq import differ, flores, load_translator, marian
from spqr_checks.tools.translation.translate import Untranslated

pytestmark = pytest.mark.usefixtures("one_thread")

ENGLISH = ["a red star", "a tree", "the moon"]
FRENCH = ["une etoile rouge", "un arbre", "la lune"]


@pytest.mark.heavy
def test_a_model_of_many_languages_is_told_which(nllb_dir: Path) -> None:
    translator = load_translator(str(nllb_dir))
    assert translator.translate(ENGLISH, "en", "fr") == FRENCH
    assert translator.translate(FRENCH, "fr", "en") == ENGLISH
    assert translator.translate(["la lune"], "fra_Latn", "eng_Latn") == ["the moon"]


def test_nothing_is_sampled_and_torch_s_state_is_left_alone(nllb_dir: Path) -> None:
    translator = load_translator(str(nllb_dir), beams=2)
    before = torch.get_rng_state()
    texts = ["a star", "red moon", "tree"]
    assert translator.translate(texts, "en", "fr") == translator.translate(texts, "en", "fr")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_text_that_does_not_fit_is_not_cut(nllb_dir: Path) -> None:
    translator = load_translator(str(nllb_dir))
    long = "a red star " * 20
    found = translator.translate(["a tree", long, "the moon"], "en", "fr")
    assert found == ["un arbre", Untranslated("too long: 63 tokens"), "la lune"]
    assert translator.translate([long], "en", "fr") == [found[1]]


def test_an_answer_without_an_end_is_no_translation(marian_dir: Path) -> None:
    # weights at random hardly ever say that they are done
    translator = load_translator(str(marian_dir), beams=1)
    assert translator.translate(["a red star"], "en", "fr") == [Untranslated("cut off")]


def test_a_blank_answer_is_no_translation(nllb_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load_translator(str(nllb_dir))
    monkeypatch.setattr(type(translator), "_answers", lambda *_: [" \u200b", " un\n arbre "])
    assert translator.translate(["a", "b"], "en", "fr") == [Untranslated("empty"), "un arbre"]


def test_an_unknown_language_is_refused(nllb_dir: Path) -> None:
    translator = load_translator(str(nllb_dir))
    for source, target in (("en", "hi"), ("hi", "en")):
        with pytest.raises(UserError, match="does not know the language 'hi'"):
            translator.check(source, target)
    translator.check("en", "fr")


def test_m2m_100_is_told_both_languages(m2m_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load_translator(str(m2m_dir), beams=1)
    codes = translator.tokenizer.lang_code_to_id
    drawn = []
    generate = translator.model.generate

    def record(**given: Any) -> torch.Tensor:
        drawn.append((given["input_ids"][0, 0].item(), generate(**given)))
        return drawn[-1][1]

    monkeypatch.setattr(translator.model, "generate", record)
    translator.translate(["a red star"], "fr", "hi")
    first, answer = drawn[0]
    assert (first, answer[0, 1].item()) == (codes["fr"], codes["hi"])
    with pytest.raises(UserError, match="does not know the language 'qq'"):
        translator.check("en", "qq")


def test_marian_s_target_stands_before_the_text(marian_dir: Path) -> None:
    translator = load_translator(str(marian_dir))
    assert translator._prepared([">>spa<< a star"], "en", "fr") == [">>fra<< >>spa<< a star"]
    ids = translator.tokenizer(">>fra<< >>spa<< a star")["input_ids"]
    known = translator.tokenizer.get_vocab()
    assert ids[0] == known[">>fra<<"]
    assert known[">>spa<<"] not in ids  # a prompt cannot choose the language
    translator.check("en", "es")
    with pytest.raises(UserError, match="does not translate into 'hi'"):
        translator.check("en", "hi")
    with pytest.raises(UserError, match="translates from en into fr, not from fr into es"):
        translator.check("fr", "es")


def test_the_recipe_follows_weights_tokenizer_and_beams(marian_dir: Path, tmp_path: Path) -> None:
    translator = load_translator(str(marian_dir))
    json.dumps(translator.recipe)
    assert translator.name == "en-fr"
    copy = tmp_path / "elsewhere" / "en-fr"
    shutil.copytree(marian_dir, copy)
    again = load_translator(str(copy))
    assert (again.recipe, again.revision) == (translator.recipe, translator.revision)
    assert load_translator(str(copy), beams=1).recipe != translator.recipe
    shutil.copy(marian_dir / "source.spm", copy / "further.spm")
    changed = load_translator(str(copy))
    assert changed.recipe["model"] != translator.recipe["model"]
    assert changed.revision != translator.revision


def test_from_the_hub_the_pieces_are_fetched_too_and_the_commit_is_the_revision(
    marian_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from spqr_checks.models import sources

    asked = []
    monkeypatch.setattr(sources, "resolve", lambda _: marian_dir)
    monkeypatch.setattr(sources, "source_recipe", lambda _: {"commit": "c0ffee"})
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or ""
    )
    translator = load_translator("owner/en-fr@main")
    ((name,), options) = asked[0]
    assert (name, options["allow_patterns"]) == ("owner/en-fr", ["*.spm"])
    assert (translator.name, translator.revision) == ("owner/en-fr", "c0ffee")


@pytest.mark.parametrize(
    ("beams", "dtype", "message"), [(0, "auto", "--beams is 0"), (1, "int8", "unknown dtype")]
)
def test_settings_out_of_range(nllb_dir: Path, beams: int, dtype: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_translator(str(nllb_dir), dtype=dtype, beams=beams)


def test_what_is_no_translation_model_is_refused(nllb_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(nllb_dir, copy)
    weights = load_file(copy / "model.safetensors")
    weights.pop(next(k for k in weights if "fc1" in k))
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="weights do not fit the architecture"):
        load_translator(str(copy))
    (copy / "config.json").write_text('{"model_type": "clip"}', encoding="utf-8")
    with pytest.raises(UserError, match="cannot be loaded as a translation model"):
        load_translator(str(copy))


def test_codes_of_the_models() -> None:
    assert (flores("fr"), flores("ar"), flores("ben_Beng")) == ("fra_Latn", "arb_Arab", "ben_Beng")
    assert marian("ar") == (">>ar<<", ">>ara<<")
    assert marian("ben") == (">>ben<<",)


@pytest.mark.parametrize(
    ("stated", "language", "other"),
    [
        ("fr", "fr", False),
        ("fra", "fr", False),
        ("fr", "fra", False),
        ("ara", "ar", False),
        ("fr", "es", True),
        ("eng", "es", True),
        ("en", "pl", True),
        ("mul", "es", False),
        ("ROMANCE", "es", False),
        (None, "es", False),
    ],
)
def test_only_a_known_other_language_is_another(
    stated: str | None, language: str, other: bool
) -> None:
    assert differ(stated, language) is other
