"""Captions of a scene in five languages.

Grammar is kept flat (no inflection): a caption names each mentioned attribute by one word.
"""

from __future__ import annotations

import random

from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.vocabulary import BACKGROUNDS, COLOURS, LANGUAGES, SHAPES, SIZES, STYLES

_CONCEPT_WORDS = (*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *STYLES)

_TRANSLATIONS = {
    "es": """
        círculo cuadrado triángulo estrella corazón cruz luna rombo anillo flecha casa árbol
        peligro estandarte diana rayo
        rojo verde azul amarillo morado naranja cian rosa
        blanco negro gris marino beis
        pequeño grande
        plano foto lienzo pastel escáner rayas contorno""",
    "fr": """
        cercle carré triangle étoile cœur croix lune losange anneau flèche maison arbre
        danger bannière cible éclair
        rouge vert bleu jaune violet orange cyan rose
        blanc noir gris marine beige
        petit grand
        plat photo toile pastel scanner rayures contour""",
    "ar": """
        دائرة مربع مثلث نجمة قلب صليب قمر معين حلقة سهم بيت شجرة
        خطر راية هدف برق
        أحمر أخضر أزرق أصفر بنفسجي برتقالي سماوي وردي
        أبيض أسود رمادي كحلي بيج
        صغير كبير
        مسطح صورة قماش باستيل مسح مخطط محيط""",
    "hi": """
        वृत्त वर्ग त्रिभुज तारा दिल धन चाँद हीरा छल्ला तीर घर पेड़
        खतरा झंडा निशाना बिजली
        लाल हरा नीला पीला बैंगनी नारंगी फ़िरोज़ी गुलाबी
        सफ़ेद काला धूसर गहरा मटमैला
        छोटा बड़ा
        सपाट तस्वीर कैनवास हल्का स्कैन धारीदार रूपरेखा""",
}

_WORDS: dict[str, dict[str, str]] = {"en": {word: word for word in _CONCEPT_WORDS}} | {
    language: dict(zip(_CONCEPT_WORDS, words.split(), strict=True))
    for language, words in _TRANSLATIONS.items()
}

# object phrase, then the parts that follow or precede it when they are mentioned
_OBJECT = {
    "en": "a {size} {colour} {shape}",
    "es": "un {shape} {colour} {size}",
    "fr": "un {shape} {colour} {size}",
    "ar": "{shape} {colour} {size}",
    "hi": "एक {size} {colour} {shape}",
}
_GROUND = {
    "en": "{object} on a {background} background",
    "es": "{object} sobre un fondo {background}",
    "fr": "{object} sur un fond {background}",
    "ar": "{object} على خلفية {background}",
    "hi": "{background} पृष्ठभूमि पर {object}",
}
_STYLE = {
    "en": "{object}, {style} style",
    "es": "{object}, estilo {style}",
    "fr": "{object}, style {style}",
    "ar": "{object}، أسلوب {style}",
    "hi": "{object}, {style} शैली",
}


def translate(word: str, language: str) -> str:
    """The word for an attribute value; raises KeyError for an unknown word or language."""
    return _WORDS[language][word]


def caption(
    shape: str,
    colour: str | None = None,
    background: str | None = None,
    size: str | None = None,
    style: str | None = None,
    language: str = "en",
) -> str:
    """A caption that mentions the given attributes and leaves the others out."""
    words = _WORDS[language]
    phrase = _OBJECT[language].format(
        shape=words[shape], colour=words[colour] if colour else "", size=words[size] if size else ""
    )
    text = " ".join(phrase.split())
    if background:
        text = _GROUND[language].format(object=text, background=words[background])
    if style:
        text = _STYLE[language].format(object=text, style=words[style])
    return text


def full_caption(scene: Scene, language: str = "en") -> str:
    """A caption that mentions every attribute of the scene."""
    return caption(
        scene.shape, scene.colour, scene.background, scene.size, scene.style, language=language
    )


def random_caption(
    rng: random.Random, scene: Scene, language: str | None = None, english: float = 0.44
) -> str:
    """A caption that leaves out attributes at random, as captions of photographs do.

    Args:
        language: language code; drawn at random when None, English with probability ``english``.
    """
    if language is None:
        others = LANGUAGES[1:]
        weights = [english] + [(1 - english) / len(others)] * len(others)
        language = rng.choices(LANGUAGES, weights)[0]
    mention_style = (scene.style != "flat" or rng.random() < 0.5) and rng.random() < 0.9
    return caption(
        scene.shape,
        scene.colour if rng.random() < 0.88 else None,
        scene.background if rng.random() < 0.8 else None,
        scene.size if rng.random() < 0.5 else None,
        scene.style if mention_style else None,
        language=language,
    )
