"""Processor time limits inside a child."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from ..channel import Channel, ChannelError

#: Exit code of a child that used up its processor time.
OUT_OF_TIME = 124
#: Code that never returns to the interpreter does not see the first signal; the second one kills it.
_GRACE_SECONDS = 0.5
#: So long the other side may take to hear the last message.
_REST_SECONDS = 1.0


def end_when_out_of_time(last_words: Callable[[], None]) -> Callable[[float], None]:
    """Makes a function that gives this process so many seconds of processor time from now on, and no more.

    Args:
        last_words: Called before the process ends because of it.
    """
    leave, set_timer = os._exit, signal.setitimer
    profiling, virtual = signal.ITIMER_PROF, signal.ITIMER_VIRTUAL

    def end(signal_number: int, frame: object) -> None:
        try:
            last_words()
        finally:
            leave(OUT_OF_TIME)

    signal.signal(signal.SIGPROF, end)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)

    def start(seconds: float) -> None:
        set_timer(profiling, seconds)
        set_timer(virtual, seconds + _GRACE_SECONDS)

    return start


def leave_when_heard(channel: Channel, leave: Callable[[int], object]) -> None:
    """Ends this process once the other side is done with it, or a moment has gone by. Does not return.

    The other side reads how much processor time the last test took; a process that ends frees its memory, which takes
    time that is not the test's.
    """
    try:
        with suppress(ChannelError):
            channel.receive(_REST_SECONDS)
    finally:
        leave(0)
