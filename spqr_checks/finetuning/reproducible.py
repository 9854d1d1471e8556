"""A scope in which torch computes the same bits in any process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Fixes threads, the global seed and algorithms; restores them afterwards.

    Args:
        seed: of torch's global generators, for layers that draw from them (dropout).
        threads: sums over several threads differ from sums over one.
    """
    threads_before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    # read by cuBLAS when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
            torch.manual_seed(seed)
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            torch.set_num_threads(threads_before)
