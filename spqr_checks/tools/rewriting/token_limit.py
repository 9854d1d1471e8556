"""Whether prompts fit the text encoders of a pipeline, which cut off what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest, file_digest

_ONE_OF = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")
_FILES = sorted((*_ONE_OF, "merges.txt", "special_tokens_map.json", "added_tokens.json"))
_NO_LIMIT = 100_000
"""Tokenizers without a length of their own state an astronomical one."""


@dataclass(frozen=True)
class TokenLimit:
    """A tokenizer's count, start and end tokens included, and the most that fits."""

    count: Callable[[str], int]
    most: int
    recipe: dict[str, Json]

    def exceeded_by(self, text: str) -> int | None:
        """The number of tokens if they are too many."""
        n = self.count(text)
        return n if n > self.most else None


def token_limits(source: str, most: int | None = None) -> list[TokenLimit]:
    """The limits of every tokenizer of a source.

    Args:
        source: directory or Hub id of a pipeline (all its ``tokenizer*`` folders count), of a
            text model, or of a tokenizer.
        most: tokens, instead of the tokenizers' own lengths.

    Raises:
        UserError: if there is no tokenizer, it cannot be loaded, or it states no length.
    """
    from spqr_checks.models.pretrained import load_tokenizer, quiet
    from spqr_checks.models.sources import resolve

    if most is not None and most < 1:
        raise UserError(f"at most {most} tokens: give a number of at least 1")
    folder = resolve(source)
    limits = []
    for place in (folder, *sorted(folder.glob("tokenizer*"))):
        if not any((place / name).is_file() for name in _ONE_OF):
            continue
        tokenizer = load_tokenizer(place, place)
        limit = most or int(tokenizer.model_max_length)
        if limit > _NO_LIMIT:
            raise UserError(f"{place}: the tokenizer states no length; give the most tokens")

        def count(text: str, tokenizer: object = tokenizer) -> int:
            with quiet():
                return len(tokenizer(text)["input_ids"])  # type: ignore[operator]

        present = (place / name for name in _FILES if (place / name).is_file())
        files: Json = digest({file.name: file_digest(file) for file in present})
        limits.append(TokenLimit(count, limit, {"tokenizer": files, "most_tokens": limit}))
    if not limits:
        raise UserError(f"{source}: no tokenizer in {folder}; name a pipeline or a text model")
    return limits
