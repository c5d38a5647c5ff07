"""Frames of bytes over a socket, between the trusted side and a child that runs model code."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!I")
_CHUNK = 1 << 16


class ChannelError(Exception):
    """The other side is gone, too slow, or says more than it may."""


class Channel:
    """One end of a stream socket on which each message has its length before it.

    Args:
        stream: The socket; closed with the channel.
        most_bytes: The longest message that is accepted.
    """

    def __init__(self, stream: socket.socket, most_bytes: int) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._received = bytearray()

    def send(self, message: bytes) -> None:
        """Sends one message.

        Raises:
            ChannelError: The other side is gone or does not read.
        """
        try:
            self._stream.sendall(_HEADER.pack(len(message)) + message)
        except OSError as error:
            raise ChannelError(f"cannot be written to: {error}") from error

    def receive(self, seconds: float | None = None) -> bytes:
        """The next message.

        Args:
            seconds: How long the other side may say nothing; None for ever.

        Raises:
            ChannelError: The other side is gone, said nothing for so long, or announced a message that is too long.
        """
        size = _HEADER.unpack(self._take(_HEADER.size, seconds))[0]
        if size > self._most_bytes:
            raise ChannelError(f"a message of {size} bytes; at most {self._most_bytes} are accepted")
        return self._take(size, seconds)

    def close(self) -> None:
        """Closes the socket."""
        self._stream.close()

    def _take(self, size: int, seconds: float | None) -> bytes:
        while len(self._received) < size:
            try:
                self._stream.settimeout(seconds)
                chunk = self._stream.recv(_CHUNK)
            except TimeoutError as error:
                raise ChannelError(f"nothing came for {seconds} s") from error
            except OSError as error:
                raise ChannelError(f"cannot be read: {error}") from error
            if not chunk:
                raise ChannelError("closed")
            self._received += chunk
        taken = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return taken
