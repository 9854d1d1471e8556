"""Whether the Hugging Face Hub can be asked at all.

Its own client tries again for a minute where nobody answers. Whoever is not online should read a
sentence at once, and get what lies in the cache.
"""

from __future__ import annotations

import queue
import threading
from functools import cache

_SECONDS = 2.0


def away() -> bool:
    """Whether only the cache can be asked: by the Hub's own setting, or for want of an answer.

    The address is tried once in the life of a process, for at most two and a half seconds. Where
    nobody answers, the Hub's client is then told that it is offline: it asks for things of its own,
    such as lists for its statistics, also where only the cache was to be looked into.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    return bool(constants.HF_HUB_OFFLINE)


@cache
def _answers(address: str) -> bool:
    from huggingface_hub import get_session

    said: queue.Queue[bool] = queue.Queue()

    def ask() -> None:
        try:
            get_session().head(address, timeout=_SECONDS)
        except Exception:  # of whatever kind: what the libraries raise has changed before
            said.put(False)
        else:
            said.put(True)

    # looking a name up has no time limit of its own
    threading.Thread(target=ask, name="spqr-hub", daemon=True).start()
    try:
        return said.get(timeout=_SECONDS + 0.5)
    except queue.Empty:
        return False
