"""Networks in ONNX files, run on the CPU. Light until one is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.packages import missing
from spqr_checks.user_files import path_of

BATCH = 4
"""Images per run of a network; fixed, because the last bits may depend on it.

More take more memory and are no faster on a CPU.
"""


def onnx_file(judge: str, source: str, package: str, packaged: str, extra: str) -> Path:
    """The file that a judge's source names, or the one in its package where none is given.

    Args:
        package: the module beside which the package keeps the file ``packaged``.

    Raises:
        UserError: for a file that is not there or is none.
    """
    if not source:
        found = find_spec(package)  # found, not imported
        if found is None or found.origin is None:
            raise missing(f"judge {judge!r}", package, extra=extra)
        source = str(Path(found.origin).with_name(packaged))
    path = path_of(source)
    if path.suffix.lower() != ".onnx" or not path.is_file():
        raise UserError(f"judge {judge!r}: {source} is no .onnx file; give a file or no source")
    return path


def onnx_session(path: Path, threads: int) -> Any:
    """The network of one input and one output in a file, as an onnxruntime session.

    Raises:
        UserError: for a file that onnxruntime cannot read, or another number of either.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    try:
        loaded = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{path}: cannot be loaded as an ONNX network: {error}") from error
    inputs, outputs = loaded.get_inputs(), loaded.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs, not one each")
    return loaded
