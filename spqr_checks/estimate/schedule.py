"""How long work takes that several processes share. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def wall_time(
    needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], workers: int
) -> float:
    """Time until the last task is done (list scheduling, Graham 1966).

    Whoever is free takes the first task, in the order of ``needs``, whose own needs are done. That
    is never shorter than the longest chain of needs, nor than all work divided by the workers, and
    never longer than both together.

    Args:
        needs: task → tasks that must be done before it; each is a task too.
        seconds: of each task; without an entry none.
        workers: how many tasks can be in the works at once.

    Raises:
        ValueError: fewer than one worker, an unknown need, or needs in a circle.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers do nothing")
    order = {task: position for position, task in enumerate(needs)}
    if not all(need in order for before in needs.values() for need in before):
        raise ValueError("a task needs one that is not there")
    names = list(needs)
    left = {task: len(set(before)) for task, before in needs.items()}
    after: dict[str, list[str]] = {task: [] for task in needs}
    for task, before in needs.items():
        for need in set(before):
            after[need].append(task)
    ready = [order[task] for task, count in left.items() if count == 0]
    heapq.heapify(ready)
    working: list[tuple[float, int]] = []
    now, done = 0.0, 0
    while ready or working:
        while ready and len(working) < workers:
            position = heapq.heappop(ready)
            heapq.heappush(working, (now + seconds.get(names[position], 0.0), position))
        now, position = heapq.heappop(working)
        done += 1
        for task in after[names[position]]:
            left[task] -= 1
            if left[task] == 0:
                heapq.heappush(ready, order[task])
    if done < len(names):
        raise ValueError("tasks need each other in a circle")
    return now
