"""Work that waits for a network, driven from plain code: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """An event loop that runs in a thread until it is closed.

    The thread is a daemon: a program that ends without closing it is not held up.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-engine", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Waits for the result of one piece of work."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def as_finished(self, works: Iterable[Coroutine[Any, Any, Result]], limit: int) -> Iterator[Result]:
        """Yields results as they come, with up to `limit` pieces of work under way.

        A piece is taken from `works` only when there is room for it. When the generator is closed, or when anything
        is raised, what is under way is cancelled, and has ended before this returns. What had its result by then is
        given before a piece's exception is raised: it may have been paid for.
        """
        finished: SimpleQueue[Future[Result]] = SimpleQueue()
        under_way = 0
        try:
            for work in works:
                asyncio.run_coroutine_threadsafe(work, self._loop).add_done_callback(finished.put)
                under_way += 1
                while under_way == limit or not finished.empty():
                    under_way -= 1
                    yield finished.get().result()
            while under_way:
                under_way -= 1
                yield finished.get().result()
        except Exception:
            self.cancel()
            while not finished.empty():
                if _has_result(one := finished.get()):
                    yield one.result()
            raise
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancels everything that is under way, and waits until it has ended."""
        if self._can_answer():
            self.run(_cancel_others())

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ends the loop and its thread, and before that whatever is under way.

        Args:
            last: Makes the last piece of work.
        """
        if not self._can_answer():
            return
        self.cancel()
        self.run(last())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _can_answer(self) -> bool:
        """Whether the thread runs; when the program ends, the interpreter stops it wherever it is."""
        return self._thread.is_alive() and not sys.is_finalizing()


class Turns:
    """Two kinds of work, of which only one is under way at a time; lives in one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._under_way = {False: 0, True: 0}

    @asynccontextmanager
    async def of(self, kind: bool) -> AsyncIterator[None]:
        """Waits until nothing of the other kind is under way, and keeps it so."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._under_way[not kind])
            self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
            async with self._changed:
                self._changed.notify_all()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _has_result(work: Future[Any]) -> bool:
    return not work.cancelled() and work.exception() is None
