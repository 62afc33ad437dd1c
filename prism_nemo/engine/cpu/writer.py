"""Saving a checkpoint without processes that start anew.

core/dist_checkpointing/strategies/filesystem_async.py starts a manager process (spawn: it imports the main script and
torch again, seconds) to carry the results of a save, and async_utils.py one that writes, which asks for a GPU. A queue
does for the first, and a fork for the second.
"""

import multiprocessing
import queue
from typing import Any


class _Queue:
    """A queue that can be shut down the way Megatron-Bridge shuts down its manager after a failure."""

    def __init__(self, carrier: Any) -> None:
        self.put, self.get, self.get_nowait = carrier.put, carrier.get, carrier.get_nowait
        self._manager = self

    def shutdown(self) -> None:
        pass


def stay_in_process() -> list[str]:
    """Replace the queue; the name set. Only for synchronous saves."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    filesystem_async._results_queue = _Queue(queue.SimpleQueue())
    return ["filesystem_async._results_queue"]


def fork_to_save() -> list[str]:
    """Write asynchronous saves in a fork of the rank, whose memory is the moment of the save; the names set."""
    from megatron.core.dist_checkpointing.strategies import async_utils, filesystem_async

    filesystem_async._results_queue = _Queue(multiprocessing.get_context("fork").Queue())
    async_utils.AsyncCallsQueue.warmup_persistent_caller = lambda *args, **kwargs: None
    async_utils.AsyncCallsQueue._get_async_caller = lambda self: async_utils.TemporalAsyncCaller()
    return [
        "filesystem_async._results_queue",
        "AsyncCallsQueue.warmup_persistent_caller",
        "AsyncCallsQueue._get_async_caller",
    ]
