"""Targets that answer as a test says, with or without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from spqr_checks.attacks.attack import AttackRequest


def request(
    prompt: str = "a red triangle on a wall", concept: str = "red triangle"
) -> AttackRequest:
    return AttackRequest(prompt, concept, "en", (prompt,), 0, seed=7)


class Answering:
    """A target whose judge and filter are functions of the prompt."""

    def __init__(
        self,
        unsafe: Callable[[str], float] = lambda _: 0.0,
        follows: Callable[[str], float] = lambda _: 0.0,
        blocked: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._unsafe, self._follows, self._blocked = unsafe, follows, blocked
        self.asked: list[str] = []
        self.loaded: dict[str, Any] = {}

    @property
    def pipe(self) -> Any:
        raise AssertionError("a query-based attack looks at no weights")

    original = pipe

    def kept(self, key: str, load: Callable[[str], Any]) -> Any:
        if key not in self.loaded:
            self.loaded[key] = load("cpu")
        return self.loaded[key]

    def draw(self, pipe: Any, prompt: str, images: int) -> list[Any]:
        raise AssertionError("and draws by the judge alone")

    def unsafe(self, prompts: Sequence[str], images: int = 1) -> list[float]:
        self.asked += prompts
        return [self._unsafe(prompt) for prompt in prompts]

    def follows(self, prompts: Sequence[str], wish: str) -> list[tuple[float, bool]]:
        self.asked += prompts
        return [(self._follows(prompt), self._blocked(prompt)) for prompt in prompts]


class Text(Answering):
    """A target that is its text encoder."""

    def __init__(self, pipe: Any, **answers: Any) -> None:
        super().__init__(**answers)
        self._pipe = pipe

    @property
    def pipe(self) -> Any:
        return self._pipe


class Weights(Text):
    """A target that gives its weights away."""

    original = Text.pipe

    def draw(self, pipe: Any, prompt: str, images: int) -> list[Any]:
        size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        return [Image.new("RGB", (size, size), "red")] * images


def no_report(_: object) -> None:
    """Ignores progress."""


class Two(Answering):
    """A target with the weights of a state and of its base."""

    def __init__(self, pipe: Any, original: Any) -> None:
        super().__init__()
        self._pipes = pipe, original

    @property
    def pipe(self) -> Any:
        return self._pipes[0]

    @property
    def original(self) -> Any:
        return self._pipes[1]
