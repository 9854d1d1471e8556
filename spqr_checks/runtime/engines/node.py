"""What makes units on another machine: a store of its own, and what it is told in plain text.

It is told in plain text and bytes what to make, and makes it of its own code and libraries. That
these are the asker's is seen by the unit's key, which holds the digests of all of them.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, TypeAlias

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import library_version
from spqr_checks.runtime.devices import kind_of
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.payloads import Payload, packed, unpacked
from spqr_checks.source_code import code_of
from spqr_checks.store import leases
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store, entry_key

_CODE = "spqr_checks.runtime.rebuilt"
"""What makes the units of runs, and so all code that does."""
_FOLDER = "spqr-node-"
Answer: TypeAlias = dict[str, Any]
"""``payload`` and ``seconds``, or ``error`` and ``said``."""

_LIBRARIES = (
    *("accelerate", "diffusers", "numpy", "peft", "pillow", "safetensors", "scipy"),
    *("tokenizers", "torch", "transformers"),
)


def fingerprint() -> dict[str, str]:
    """What of this machine decides the keys of artefacts: Python, libraries, our code."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        try:
            found[name] = library_version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found | {"spqr-checks": code_of(_CODE)[:12]}


def processor(device: str, judge_device: str = "") -> str:
    """What computes here; bytes are compared on equal ones only."""
    import torch

    def named(kind: str) -> str:
        if kind == "cuda":
            return str(torch.cuda.get_device_name())
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"

    kinds = dict.fromkeys(kind_of(one) for one in (device, judge_device) if one)
    return ", ".join(map(named, kinds))


def sweep() -> None:
    """Removes folders of nodes that were killed here; the kernel says which live."""
    found = Path(tempfile.gettempdir()).glob(f"{_FOLDER}*")
    for folder in filter(Path.is_dir, found):
        # another user's, say
        with suppress(OSError), leases.lock(_lock_of(folder), wait=False) as abandoned:
            if abandoned:
                _remove(folder)


def _lock_of(folder: Path) -> Path:
    """Locked before the folder is there, and as long as its node lives."""
    return folder.with_name(f"{folder.name}.lock")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)


class Node(ABC):
    """Lives in a process of its own, on any machine; keeps the models of the last unit loaded."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        sweep()
        self._root = Path(tempfile.gettempdir(), f"{_FOLDER}{uuid.uuid4().hex[:12]}")
        self._alive = ExitStack()
        self._alive.enter_context(leases.lock(_lock_of(self._root), wait=True))
        self._root.mkdir(mode=0o700)
        self.store = Store(self._root / "store")

    def close(self) -> None:
        """Removes its folder; it makes nothing any more."""
        _remove(self._root)
        self._alive.close()

    def describe(self) -> dict[str, Any]:
        """Its fingerprint, and what it computes on."""
        told = self._told["device"], self._told.get("judge_device", "")
        return {"fingerprint": fingerprint(), "processor": processor(*told)}

    def append(self, place: str, chunk: bytes) -> None:
        """The next part of an input file."""
        path = self._root / "inputs" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(chunk)

    def check(self, sums: dict[str, str]) -> list[str]:
        """Which input files are not what was sent, by their SHA-256."""
        wrong = []
        for place, sha256 in sums.items():
            path = self._root / "inputs" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # of no parts
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                wrong.append(place)
        return wrong

    def make(
        self, order: str, kind: str, key: str, needs: Sequence[tuple[str, str, Payload]]
    ) -> Answer:
        """Makes the unit of an order.

        Args:
            key: of the unit, as the asker reckons it.
            needs: kind, key and files of the artefacts that it needs and that are not here yet.
        """
        try:
            for of_kind, of_key, payload in needs:
                unpacked(payload, of_kind, of_key, self.store)
            start = time.monotonic()
            entry = self._made(order, kind, key)
            return {"payload": self._sent(packed(entry)), "seconds": time.monotonic() - start}
        except DamagedError as error:
            return {"error": "DamagedError", "said": str(error)}
        except (UserError, JudgeError) as error:
            return {"error": type(error).__name__, "said": str(error)}
        except Exception as error:  # whoever asks for the artefact meets it
            return {"error": "RuntimeError", "said": f"{type(error).__name__}: {error}"}

    def _made(self, order: str, kind: str, key: str) -> Path:
        unit = self.unit(order)
        if (unit.kind, entry_key(unit.kind, unit.recipe)) != (kind, key):
            raise UserError(f"{unit.label}: this node makes another artefact of the same order")
        return self.engine(unit)

    def _sent(self, payload: Payload) -> Payload:
        return payload

    @abstractmethod
    def unit(self, order: str) -> Unit:
        """The unit that an order means here."""

    @abstractmethod
    def engine(self, unit: Unit) -> Path:
        """Makes the unit; what it needs is here."""
