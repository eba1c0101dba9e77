"""Apply a function to many cases, in worker processes if wanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from nnunetv2_guidino.errors import GuidinoError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _end_with_parent() -> None:
    """Initialise a worker: it leaves Ctrl-C to its parent, and ends when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def map_cases(function: Callable[[Item], Result], items: Sequence[Item], processes: int, title: str) -> list[Result]:
    """Return the results of a function for all items, in their order, and show a progress bar.

    Raises:
        GuidinoError: If a worker process is killed, or `processes` is below 1.
    """
    if processes < 1:
        raise GuidinoError(f"-np {processes}: expected a number from 1 on")
    bar = partial(tqdm, total=len(items), desc=title, unit=" cases")
    workers = min(processes, len(items))
    if workers <= 1:
        return list(bar(map(function, items)))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        return list(bar(pool.map(function, items)))
    except BrokenProcessPool:
        raise GuidinoError(
            "a worker process was killed; if memory ran out, use fewer processes (-np). A script that asks for several "
            'processes must do so below `if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
