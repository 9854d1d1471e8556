"""Files of users, changed at random: they are read, or refused in words; nothing else ever."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.models.lora_files import read_file, read_peft_config
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.settings import load_settings

CSV = b"""id,prompt,kind,concept,category,language,domain,anchor
a,"a hazard sign, red",harmful,hazard,signs,en,photo,a sign
b,a road sign,lookalike,hazard,signs,en,photo,
c,a tree,benign,,,en,photo,
"""
JSON = b"""[{"prompt": "a hazard sign", "kind": "harmful", "concept": "hazard", "id": "a"},
 {"prompt": "a tree", "kind": "benign", "language": "en", "status": "ok"}]
"""
JSONL = b"\n".join(line.strip(b"[], ") for line in JSON.splitlines())
TOML = b"""[project]
name = "x"
[tool.spqr]
seeds = [0, 1]
languages = ["en"]
min_score = 0.5
budget = "90s"
images = 24
[tool.spqr.thresholds]
unsafe = 0.1
[tool.spqr.profile.lite]
trains = "lora"
learning_rate = 1e-4
[tool.spqr.method.esd]
steps = 10
"""
PEFT = b"""{"peft_type": "LORA", "r": 8, "lora_alpha": 16.0, "rank_pattern": {"a": 4},
 "alpha_pattern": {"a": 8}, "use_rslora": false, "target_modules": ["to_q"], "bias": "none"}
"""
HEADER = b"""{"__metadata__": {"lora_adapter_metadata":
 "{\\"unet.r\\": 4, \\"unet.lora_alpha\\": 8, \\"unet.target_modules\\": [\\"a\\"]}"},
 "unet.a.lora_A.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
 "unet.a.lora_B.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [32, 64]}}
"""


def _prompts(path: Path) -> None:
    PromptSet.load([str(path)])


def _settings(path: Path) -> None:
    load_settings(path.parent, {})


def _peft(path: Path) -> None:
    read_peft_config(path)


def _lora(path: Path) -> None:
    header = path.read_bytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    read_file(path)


READERS: dict[str, tuple[bytes, Callable[[Path], None]]] = {
    "p.csv": (CSV, _prompts),
    "p.json": (JSON, _prompts),
    "p.jsonl": (JSONL, _prompts),
    "pyproject.toml": (TOML, _settings),
    "adapter_config.json": (PEFT, _peft),
    "lora.safetensors": (HEADER, _lora),
}
"""What is changed of each file, and who reads it; of a LoRA file, the header."""
_ODD = st.sampled_from(
    [
        *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1b[31m", b"\r", b"\n", b'"', b"'", b"[", b"{", b"]"),
        *(b"0", b"2.5", b"a", b'"a"', b'"~x/y"', b"[1, 1]", b'{"a": 1}', b"-0.0", b"\t", b"\\n"),
        *(b",", b"=", b"nan", b"inf", b"-1", b"1e999", b"null", b"true", b"[]", b"{}", b'""'),
        *("\u202e\u2028".encode(), b"\xed\xa0\x80"),
        *(b"\\ud800", b"a.b.c = 1\n", b"[[tool.spqr]]\n", b"[tool.spqr]\n", b"1979-99-01", b"#"),
    ]
)
_GIANTS = [b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b"0x" + b"f" * 5000, b"1e" + b"9" * 5000]
"""What Python's own parsers give up on."""
_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]),
        st.floats(0, 1),
        st.sampled_from([1, 1, 1, 2, 7]),
        _ODD | st.sampled_from(_GIANTS) | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=4,
)


_TOKEN = rb'"[^"\\]*"|[\w.+-]+|\s+|.'


def mutated(content: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    """The content after these changes: what is done, where (a share of it), to how many tokens."""
    for what, where, count, new in changes:
        tokens = re.findall(_TOKEN, content, re.DOTALL)
        at = int(where * len(tokens))
        head, middle, tail = (
            b"".join(part) for part in (tokens[:at], tokens[at : at + count], tokens[at + count :])
        )
        content = {
            "insert": head + new + middle + tail,
            "replace": head + new + tail,
            "delete": head + tail,
            "repeat": head + middle * 3 + tail,
            "cut": head,
        }[what]
    return content


def check(name: str, changes: list[tuple[str, float, int, bytes]]) -> None:
    content, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(mutated(content, changes))
        with suppress(UserError):
            read(path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_without_a_change_is_read(name: str, tmp_path: Path) -> None:
    content, read = READERS[name]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)


@pytest.mark.parametrize("giant", _GIANTS, ids=lambda giant: giant[:5].decode())
@pytest.mark.parametrize("name", READERS)
def test_a_value_that_no_parser_takes_is_refused_or_read_as_text(name: str, giant: bytes) -> None:
    content = READERS[name][0]
    tokens = re.findall(_TOKEN, content, re.DOTALL)
    value = max(n for n, token in enumerate(tokens) if re.fullmatch(rb'"?\w[\w. ]*"?', token))
    check(name, [("replace", value / len(tokens) + 1e-9, 1, giant)])


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(READERS)), _CHANGES)
def test_a_changed_file_is_read_or_refused(
    name: str, changes: list[tuple[str, float, int, bytes]]
) -> None:
    check(name, changes)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(READERS)), _CHANGES)
def test_a_changed_file_is_read_or_refused_by_the_thousand(
    name: str, changes: list[tuple[str, float, int, bytes]]
) -> None:
    check(name, changes)
