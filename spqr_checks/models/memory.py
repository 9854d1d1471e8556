"""Freed memory is kept for the next layer, not given back to the system after every step.

glibc gives the top of its heap back whenever more than 64 MB of it are free, and a step
of drawing or training frees hundreds and asks for them again. The system then hands out every page
anew, filled with zeros. Nothing that is computed changes.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt's parameters, from malloc.h."""
KEPT_BYTES = 2**30
"""Most that is kept; what networks hold at a time is not limited by it."""
_LARGE = 2**25
"""From here on a piece of memory is mapped by itself; the most that glibc takes."""
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed() -> None:
    """From now on this process keeps what it frees.

    Does nothing with other C libraries, or where the environment says how memory is kept.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _CHOSEN):
        return
    libc = ctypes.CDLL(None)
    # naming one of them fixes the other, which glibc would adapt, at a small number
    libc.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    libc.mallopt(_MMAP_THRESHOLD, _LARGE)
