"""Files that are put together must agree."""

from __future__ import annotations

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.joining import Joining
from spqr_checks.prompts.prompt import Prompt


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"concept": "Bolt"}, {"concept": "bolt"}, "concept 'bolt' is spelled 'Bolt' elsewhere"),
        ({"concept": "red bolt"}, {"concept": "red-bolt"}, "concept 'red-bolt' is spelled"),
        ({"language": "EN"}, {"language": "en"}, "language 'en' is spelled 'EN' elsewhere"),
        ({"domain": "oil_paint"}, {"domain": "Oil paint"}, "domain 'Oil paint' is spelled"),
        ({"category": "A"}, {"category": "a"}, "category 'a' is spelled 'A' elsewhere"),
        ({"category": "a"}, {"category": "b"}, "is in the categories 'a' and 'b'"),
    ],
)
def test_two_spellings_would_make_two_cells_of_one(
    one: dict[str, str], other: dict[str, str], message: str
) -> None:
    joining = Joining()
    joining.add("one.csv", [Prompt("1", "x", "harmful", **{"concept": "c", **one})])
    with pytest.raises(UserError) as error:
        joining.add("two.csv", [Prompt("2", "y", "harmful", **{"concept": "c", **other})])
    assert message in str(error.value)
    assert "two.csv" in str(error.value)


def test_benign_prompts_need_no_common_category() -> None:
    joining = Joining()
    joining.add("p.csv", [Prompt("1", "x", "benign"), Prompt("2", "y", "benign", category="c")])
    assert [p.id for p in joining.prompts] == ["1", "2"]
