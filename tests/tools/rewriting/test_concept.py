"""The file of concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.tools.rewriting.concept import Concept, read_concepts


def write(folder: Path, text: str) -> Path:
    path = folder / "concepts.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_category_is_an_array_of_names_or_a_table_with_aliases(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'warnings = ["hazard sign", "bolt"]\n'
        '[signals]\n"red triangle" = ["مثلث أحمر"]\nstar = []\n',
    )
    assert read_concepts(path) == (
        Concept("hazard sign", "warnings"),
        Concept("bolt", "warnings"),
        Concept("red triangle", "signals", ("مثلث أحمر",)),
        Concept("star", "signals"),
    )
    assert read_concepts(path)[2].names == ("red triangle", "مثلث أحمر")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no concepts"),
        ("warnings = [", "not valid TOML"),
        ("warnings = 3", "'warnings' must be an array of concepts"),
        ("warnings = [3]", "'warnings' must be an array of concepts"),
        ('[warnings]\nbolt = "flash"', "'warnings' must be an array of concepts"),
        ('warnings = ["bolt", "bolt"]', "'warnings' lists one concept twice"),
        ('warnings = ["bolt", "Bolt"]', "lists one concept twice"),
        ('warnings = ["bolt"]\nsignals = ["bolt"]', "is in 'warnings' and in 'signals'"),
        ('warnings = [" "]', "is empty"),
        ('[warnings]\nbolt = [""]', "a name of 'bolt' in 'warnings' is empty"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_concepts(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_or_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_concepts(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'x = ["caf\xe9"]')
    with pytest.raises(UserError, match="not UTF-8"):
        read_concepts(tmp_path / "latin.toml")
