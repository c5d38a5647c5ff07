"""A real HTTP server that speaks the OpenAI chat API, and misbehaves in the ways that real ones do."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CRITERIA = ("insight", "coherence", "accuracy", "engagement")
#: How a request's answer is found: as the judge is told to find it.
_ANSWER = re.compile(r"^<answer ([0-9a-f]+)>\n(.*)\n</answer \1>$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Sent:
    """One request as it came over the wire."""

    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def system(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def user(self) -> str:
        return self.body["messages"][1]["content"]

    @property
    def nonce(self) -> str:
        [(nonce, _)] = _ANSWER.findall(self.user)
        return nonce

    @property
    def answer(self) -> str:
        [(_, answer)] = _ANSWER.findall(self.user)
        return answer


@dataclass(frozen=True)
class Reply:
    """What the server does."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False  # the connection, in the middle of the body


def message(content: str | None, finish_reason: str = "stop", **more: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish_reason}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(json.dumps(whole).encode())


def marks(overall: float, **criteria: float) -> str:
    """The JSON that a judge is asked for."""
    return json.dumps({"reason": "made up", **dict.fromkeys(CRITERIA, overall), **criteria, "overall": overall})


def status(code: int, text: str = "no") -> Reply:
    """An error as OpenAI's API words it; the client is told to try again soon, so that tests are quick."""
    return Reply(json.dumps({"error": {"message": text}}).encode(), code, {"retry-after-ms": "5"})


Behaviour = Callable[[Sent, int], Reply]


@dataclass
class Server:
    """A running server.

    Attributes:
        base_url: What a judge's options name.
        sent: The requests so far.
        behave: Decides a reply by the request and its number, from 0.
        most_at_once: The most requests that were under way together.
    """

    base_url: str = ""
    behave: Behaviour = lambda sent, number: message(marks(7))
    sent: list[Sent] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def reply(self, sent: Sent) -> Reply:
        with self._lock:
            number = len(self.sent)
            self.sent.append(sent)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            found = self.behave(sent, number)
            time.sleep(found.delay)
            return found
        finally:
            with self._lock:
                self._now -= 1

    def in_turn(self, *replies: Reply) -> None:
        """These replies one after the other; the last one for all further requests."""
        self.behave = lambda sent, number: replies[min(number, len(replies) - 1)]


@contextmanager
def serve() -> Iterator[Server]:
    """A server on a port of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.reply(Sent({key.lower(): value for key, value in self.headers.items()}, body))
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
                self.close_connection = reply.cut
            except (BrokenPipeError, ConnectionResetError):  # the client did not wait
                self.close_connection = True

        def log_message(self, *unused: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield server
        http.shutdown()
