"""The machine: processors, memory, devices, the Hub's cache, the store and workers."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from spqr_checks.doctor.packages import import_problem
from spqr_checks.errors import UserError
from spqr_checks.known_good import installed


def machine(store: Path) -> tuple[dict[str, Any], list[str]]:
    """What was found, and problems of the store."""
    found_store, problems = _store(store)
    accelerators = devices()
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": cores(),
        "memory_gib": _memory(),
        "devices": accelerators,
        "hub": hub(),
        "store": found_store,
        "workers": {"xdist": installed("pytest-xdist"), "at_most": len(accelerators) or cores()},
    }
    return found, problems


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices() -> list[dict[str, Any]]:
    """Accelerators that torch sees; the CPU is always there and not among them."""
    if import_problem("torch"):
        return []
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "name": torch.cuda.get_device_name(index),
                "memory_gib": _gib(total),
                "free_gib": _gib(free),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": platform.processor()})
    return found


def hub() -> dict[str, Any]:
    """Where the Hub's files are kept, and whether it may be asked."""
    if import_problem("huggingface_hub"):
        return {}
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    return {"cache": str(cache), "models": models, "offline": bool(constants.HF_HUB_OFFLINE)}


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people, one line each."""
    memory = found["memory_gib"]
    said = [
        f"machine: Python {found['python']}, {found['system']}, {found['cores']} cores"
        + (f", {memory} GiB" if memory else "")
    ]
    for one in found["devices"]:
        size = f", {one['free_gib']} of {one['memory_gib']} GiB free" if "free_gib" in one else ""
        said.append(f"device: {one['device']} {one['name']}{size}")
    if not found["devices"]:
        said.append("device: cpu only")
    if found["hub"]:
        kept = f"{found['hub']['models']} models in {found['hub']['cache']}"
        asked = "offline: only these" if found["hub"]["offline"] else "may be asked for others"
        said.append(f"Hub: {kept}; {asked}")
    kept = "not writable" if not found["store"]["writable"] else "writable"
    size = f"{found['store']['entries']} entries, {found['store']['mib']} MiB"
    said.append(f"store: {found['store']['path']}: {kept}, {size}")
    workers = found["workers"]
    per = "device" if found["devices"] else "core"
    said.append(
        f"workers: pytest-xdist {workers['xdist'] or 'missing'}; one a {per}: "
        f"spqr run -n {workers['at_most']}"
    )
    return said


def _store(path: Path) -> tuple[dict[str, Any], list[str]]:
    from spqr_checks.store.store import Store

    store, problems = Store(path), []
    try:
        store.check()
    except UserError as error:
        problems.append(str(error).replace("\n", " "))
    usage = store.usage().values() if path.is_dir() else ()
    entries, size = (sum(part) for part in zip(*usage, strict=True)) if usage else (0, 0)
    found = {
        "path": str(store.root),
        "writable": not problems,
        "entries": entries,
        "mib": round(size / 2**20, 1),
    }
    return found, problems


def _memory() -> float | None:
    try:
        return _gib(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return None


def _gib(size: int) -> float:
    return round(size / 2**30, 1)
