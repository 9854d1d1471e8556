"""A cell's result on its way from the test that measured it to the scorecard."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np

from spqr_checks.hashing import canonical
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.own_check import OwnCheck
from spqr_checks.scoring.serialize import MalformedError, loads, result_from_dict, result_to_dict

_NUMBER = np.dtype("<f4")


def to_message(result: CellResult) -> str:
    """The result with its replicates, which scorecard.json leaves out, as JSON.

    Raises:
        TypeError: details that are no JSON values or numbers.
    """
    packed = base64.b64encode(np.asarray(result.replicates, _NUMBER).tobytes()).decode()
    return canonical({"result": result_to_dict(result), "replicates": packed})


def as_delivered(result: CellResult) -> CellResult:
    """The result as `from_message` would give it back, for one that stays in its process."""
    rounded = np.asarray(result.replicates, _NUMBER).astype(np.float64)
    return replace(result, replicates=rounded.tolist())


def from_message(text: str) -> CellResult:
    """The inverse of `to_message`; replicates have the precision of float32.

    Raises:
        MalformedError: (a ValueError) text that `to_message` did not write.
    """
    try:
        message = loads(text)
        if not isinstance(message, dict) or message.keys() != {"result", "replicates"}:
            raise MalformedError("it has other fields than result and replicates")
        packed = base64.b64decode(message["replicates"], validate=True)
        replicates = np.frombuffer(packed, _NUMBER).astype(np.float64)
        result = result_from_dict(message["result"])
    except (TypeError, ValueError) as error:
        raise MalformedError(f"not a cell's result: {error}") from None
    return replace(result, replicates=replicates.tolist())


def own_to_message(check: OwnCheck) -> str:
    """A claim of a user's own test, as JSON."""
    return canonical(
        {"test": check.test, "claim": check.claim, "result": result_to_dict(check.result)}
    )


def own_from_message(text: str) -> OwnCheck:
    """The inverse of `own_to_message`."""
    message = loads(text)
    return OwnCheck(message["test"], message["claim"], result_from_dict(message["result"]))
