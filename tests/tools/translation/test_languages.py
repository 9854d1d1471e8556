"""Codes of languages."""

from __future__ import annotations

import pytest

from spqr_checks.tools.translation.languages import differ, flores, marian


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
