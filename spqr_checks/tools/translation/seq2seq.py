"""Translation models of transformers: Marian, M2M-100, NLLB. Heavy: import where one is needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest, file_digest
from spqr_checks.hub import away
from spqr_checks.models.pretrained import load_tokenizer, quiet
from spqr_checks.prompts.text import is_blank, one_line
from spqr_checks.tools.loading import load_model
from spqr_checks.tools.translation.translate import Translated, Untranslated

_FLORES = {
    "ar": "arb_Arab",
    "de": "deu_Latn",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "fr": "fra_Latn",
    "hi": "hin_Deva",
    "it": "ita_Latn",
    "ja": "jpn_Jpan",
    "ko": "kor_Hang",
    "pt": "por_Latn",
    "ru": "rus_Cyrl",
    "tr": "tur_Latn",
    "zh": "zho_Hans",
}
_THREE = {two: code[:3] for two, code in _FLORES.items()} | {"ar": "ara"}
_TWO = {three: two for two, three in _THREE.items()}
_LONGEST = 512
"""Tokens of a text, where neither tokenizer nor model states fewer."""


def flores(language: str) -> str:
    """The FLORES-200 code, as NLLB has it; one that is given as such (``ben_Beng``) stays."""
    return _FLORES.get(language, language)


def marian(language: str) -> tuple[str, ...]:
    """What stands before a text for those of Marian's models that have several targets."""
    codes = dict.fromkeys((language, _THREE.get(language, language)))
    return tuple(f">>{code}<<" for code in codes)


def differ(stated: str | None, language: str) -> bool:
    """Whether a model says that it is for another language (``fra`` is ``fr``).

    Nothing is known of models that say nothing, or name a family of languages.
    """
    known = _TWO.get(stated or "", stated)
    return known in _THREE and known != _TWO.get(language, language)


@dataclass(frozen=True)
class LocalTranslator:
    """A sequence-to-sequence model with its tokenizer; beam search, nothing is sampled.

    Attributes:
        source_recipe: digests of its files.
    """

    source: str
    source_recipe: dict[str, Json]
    model: Any
    tokenizer: Any
    device: str
    beams: int

    @property
    def name(self) -> str:
        """The Hub id, or the folder's own name: a path says nothing elsewhere."""
        if "commit" in self.source_recipe:
            return self.source.partition("@")[0]
        return Path(self.source).resolve().name

    @property
    def revision(self) -> str:
        """The commit of a model from the Hub, else a digest of the files."""
        return str(self.source_recipe.get("commit") or digest(self.source_recipe)[:12])

    @property
    def recipe(self) -> dict[str, Json]:
        return {
            "model": self.source_recipe,
            "beams": self.beams,
            "dtype": str(self.model.dtype),
            "device": self.device,
            # Marian's tokenizer tidies punctuation with it if it is there
            "versions": {n: _version(n) for n in ("torch", "transformers", "sacremoses")},
        }

    @property
    def longest(self) -> int:
        """The most tokens of a text, start and end included."""
        stated = getattr(self.model.config, "max_position_embeddings", None) or _LONGEST
        return min(int(self.tokenizer.model_max_length), int(stated))

    def check(self, source: str, target: str) -> None:
        for language in (source, target):
            if self._many and self._code(language) is None:
                raise UserError(f"{self.source} does not know the language {language!r}")
        if self._many:
            return
        stated, into = (
            getattr(self.tokenizer, f"{end}_lang", None) for end in ("source", "target")
        )
        if self._several and self._prefix(target) is None:
            raise UserError(f"{self.source} does not translate into {target!r}")
        if differ(stated, source) or (not self._several and differ(into, target)):
            raise UserError(
                f"{self.source} translates from {stated} into {into}, "
                f"not from {source} into {target}"
            )

    @torch.inference_mode()
    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Translated]:
        prepared = self._prepared(texts, source, target)
        with quiet():
            lengths = [len(self.tokenizer(text)["input_ids"]) for text in prepared]
            fits = [text for text, n in zip(prepared, lengths, strict=True) if n <= self.longest]
            answers = iter(self._answers(fits, target) if fits else [])
        found: list[Translated] = []
        for n in lengths:
            if n > self.longest:
                found.append(Untranslated(f"too long: {n} tokens"))
            elif (answer := next(answers)) is None:
                found.append(Untranslated("cut off"))
            else:
                found.append(Untranslated("empty") if is_blank(answer) else one_line(answer))
        return found

    @property
    def _many(self) -> bool:
        """Whether the tokenizer is told the language of a text, as M2M-100's and NLLB's are."""
        return hasattr(self.tokenizer, "src_lang")

    def _code(self, language: str) -> str | None:
        """M2M-100 has a table of codes; NLLB's are added tokens, since ``en`` may be a syllable."""
        table = getattr(self.tokenizer, "lang_code_to_id", None)
        known = self.tokenizer.get_added_vocab() if table is None else table
        return next((code for code in (language, flores(language)) if code in known), None)

    @property
    def _several(self) -> Any:
        """The languages that one of Marian's models translates into, where there are several."""
        return getattr(self.tokenizer, "supported_language_codes", ())

    def _prefix(self, language: str) -> str | None:
        return next((code for code in marian(language) if code in self._several), None)

    def _prepared(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        self.check(source, target)
        if self._many:
            self.tokenizer.src_lang = self._code(source)
            return list(texts)
        # the space keeps a prompt that begins with >>xx<< from choosing the language
        prefix = self._prefix(target) if self._several else ""
        return [f"{prefix} {text}" for text in texts]

    def _answers(self, texts: Sequence[str], target: str) -> list[str | None]:
        """The decoded answers; None for one that was not at its end when the length was."""
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        given: dict[str, Any] = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        if self._many:
            code, ids = self._code(target), getattr(self.tokenizer, "lang_code_to_id", None)
            find = self.tokenizer.convert_tokens_to_ids
            given["forced_bos_token_id"] = ids[code] if ids else find(code)
        most = min(2 * int(encoded["input_ids"].shape[1]) + 16, self.longest - 1)
        tokens = self.model.generate(
            **given, do_sample=False, num_beams=self.beams, max_new_tokens=most
        )
        end = self.tokenizer.eos_token_id
        return [
            # models of this kind may begin with the end token
            self.tokenizer.decode(row, skip_special_tokens=True)
            if end in row[1:].tolist()
            else None
            for row in tokens
        ]


def load_translator(
    source: str, device: str = "cpu", dtype: str = "auto", beams: int = 4
) -> LocalTranslator:
    """The translation model of a folder or Hub id (``owner/name`` or ``owner/name@revision``).

    Args:
        dtype: ``auto`` takes the weights' own.

    Raises:
        UserError: for settings out of range, a source that cannot be loaded as a model of this
            kind, weights that do not fit it, or a tokenizer that cannot be loaded.
    """
    if beams < 1:
        raise UserError(f"--beams is {beams}; it must be at least 1")
    model, folder, recipe = load_model(
        AutoModelForSeq2SeqLM, source, device, dtype, "translation model"
    )
    if "commit" in recipe:
        _fetch_pieces(source.partition("@")[0], folder)
    pieces: dict[str, Json] = {f.name: file_digest(f) for f in sorted(folder.glob("*.spm"))}
    recipe = recipe | ({"pieces": pieces} if pieces else {})
    tokenizer = load_tokenizer(folder, source)
    return LocalTranslator(source, recipe, model, tokenizer, device, beams)


def _fetch_pieces(name: str, folder: Path) -> None:
    """Marian's tokenizers keep their pieces in files of their own, beside what is fetched."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            name, revision=folder.name, allow_patterns=["*.spm"], local_files_only=away()
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: its tokenizer cannot be had from the Hub: {error}") from error


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None
