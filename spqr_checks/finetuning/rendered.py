"""``miniature:STYLE[:N[:LANGUAGES]]``: rendered scenes of the embedded world."""

from __future__ import annotations

from dataclasses import dataclass

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.hashing import Json, digest

_DEFAULT_N = 1000


@dataclass(frozen=True)
class Rendered:
    """A style, how many images (None: as many as asked for), and languages of the captions."""

    style: str
    n: int | None
    languages: tuple[str, ...]

    @classmethod
    def parse(cls, spec: str) -> Rendered:
        """Raises UserError for an unknown style or language, or a number that is none."""
        from spqr_checks.miniature.dataset import STYLE_NAMES
        from spqr_checks.miniature.vocabulary import LANGUAGES

        _, style, number, spoken, *rest = [*spec.split(":"), "", ""]
        if any(rest):
            raise UserError(f"data set {spec!r}: too many parts; write miniature:STYLE:N:LANGUAGES")
        if style not in STYLE_NAMES:
            raise UserError(
                f"data set {spec!r}: unknown style {style!r}; there are: {', '.join(STYLE_NAMES)}"
            )
        if number and not (number.isascii() and number.isdigit() and int(number)):
            raise UserError(f"data set {spec!r}: {number!r} is not a number of images")
        languages = tuple(spoken.split("+")) if spoken else ("en",)
        unknown = [language for language in languages if language not in LANGUAGES]
        if unknown:
            raise UserError(
                f"data set {spec!r}: unknown language {unknown[0]!r}; "
                f"there are: {', '.join(LANGUAGES)}, joined by +"
            )
        return cls(style, int(number) if number else None, languages)

    def images(self, limit: int | None) -> CaptionedImages:
        """The first ``limit`` images; a longer draw begins with the shorter one."""
        from spqr_checks.miniature.dataset import benign_images

        n = min((size for size in (self.n, limit) if size is not None), default=_DEFAULT_N)
        # a seed of its own for every style, so that two data sets never show the same scenes
        seed = int(digest([self.style, *self.languages])[:8], 16)
        return CaptionedImages(*benign_images(self.style, n, seed, self.languages))

    def recipe(self) -> dict[str, Json]:
        """The specification; the code that renders it is the caller's to add."""
        return {
            "kind": "rendered",
            "style": self.style,
            "n": self.n,
            "languages": list(self.languages),
        }
