"""A function of many items in several threads, in the items' order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_in_order(
    function: Callable[[_T], _R], items: Iterable[_T], threads: int, waiting: int
) -> Iterator[_R]:
    """Yield ``function`` of every item, in order.

    Args:
        function: called once for every item, from any of the threads.
        items: taken one at a time, in the caller's thread.
        threads: that call the function.
        waiting: items begun or waiting for their turn at the most; they bound the memory.
    """
    with ThreadPoolExecutor(threads) as pool:
        futures: deque[Future[_R]] = deque()
        try:
            for item in items:
                futures.append(pool.submit(function, item))
                if len(futures) >= waiting:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
