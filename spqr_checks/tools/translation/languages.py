"""What translation models call languages: ISO 639-1 codes and those of their tokenizers. Light."""

from __future__ import annotations

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
_THREE = {"ar": "ara", **{two: code[:3] for two, code in _FLORES.items() if two != "ar"}}


def flores(language: str) -> str:
    """The FLORES-200 code, as NLLB has it; one that is given as such (``ben_Beng``) stays."""
    return _FLORES.get(language, language)


def marian(language: str) -> tuple[str, ...]:
    """What stands before a text for those of Marian's models that have several targets."""
    return tuple(
        f">>{code}<<" for code in dict.fromkeys((language, _THREE.get(language, language)))
    )


def differ(stated: str | None, language: str) -> bool:
    """Whether a model says that it is for another language (``fra`` is ``fr``).

    Nothing is known of models that say nothing, or name a family of languages.
    """
    two = {three: two for two, three in _THREE.items()}
    known = two.get(stated or "", stated)
    return known in _THREE and known != two.get(language, language)
