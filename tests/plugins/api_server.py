"""A real HTTP server that speaks the OpenAI API, and misbehaves in the ways that real ones do, as a script says."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One request as it came over the wire."""

    path: str
    headers: Mapping[str, str]
    body: Any
    at: float

    @property
    def asked(self) -> str:
        """What tells requests apart: the last message, or the prompt's ids."""
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        return " ".join(map(str, self.body["prompt"]))


@dataclass(frozen=True)
class Reply:
    """What the server does.

    Attributes:
        body: What it sends.
        status: The HTTP status.
        headers: Further headers.
        delay: Seconds before anything is sent.
        cut: Whether the connection ends in the middle of the body.
        drop: Whether it ends before anything is sent.
        raw: Whether the body is sent as it is, without a status and headers.
        drip: Seconds between single bytes.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    drop: bool = False
    raw: bool = False
    drip: float = 0.0


def as_json(value: Any, status: int = 200, **more: Any) -> Reply:
    """Any JSON."""
    return Reply(json.dumps(value).encode(), status, **more)


def chat(
    content: Any, finish_reason: Any = "stop", n_tokens: int | None = 7, delay: float = 0.0, **message: Any
) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    usage = {} if n_tokens is None else {"usage": {"prompt_tokens": 3, "completion_tokens": n_tokens}}
    return as_json({"choices": [{**choice, "finish_reason": finish_reason}], **usage}, delay=delay)


def completion(prompt: Sequence[int], ids: Sequence[int], finish_reason: str = "stop", **more: Any) -> Reply:
    """A completion as `vllm serve` sends it."""
    choice = {"text": "as the server reads it", "finish_reason": finish_reason, "stop_reason": None}
    tokens = {"token_ids": list(ids), "prompt_token_ids": list(prompt)}
    return as_json({"choices": [{**choice, **tokens, **more}], "usage": {"prompt_tokens": len(prompt)}})


def refusal(status: int, text: str = "no", **headers: str) -> Reply:
    """An error as OpenAI's API words it."""
    return as_json({"error": {"message": text}}, status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@dataclass
class Server:
    """A running server.

    Attributes:
        base_url: What the engine's options name.
        script: For what is asked, the replies one after the other; the last one for all further tries.
        behave: The reply to what the script does not know.
        pages: What GET finds, by path.
        sent: The requests so far.
        most_at_once: The most requests that were under way together.
        hung_up: Requests whose client did not wait for the reply.
    """

    base_url: str = ""
    script: dict[str, Sequence[Reply]] = field(default_factory=dict)
    behave: Callable[[Sent], Reply] = lambda sent: chat(f"answer to {sent.asked}")
    pages: dict[str, Any] = field(default_factory=lambda: {"/v1/models": {"data": [{"id": "m", "owned_by": "x"}]}})
    sent: list[Sent] = field(default_factory=list)
    most_at_once: int = 0
    hung_up: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)
    _gone: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def replying(self, sent: Sent) -> Iterator[Reply]:
        with self._lock:
            self.sent.append(sent)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield self._reply(sent)
        finally:
            with self._lock:
                self._now -= 1

    def _reply(self, sent: Sent) -> Reply:
        if sent.body is None:
            page = self.pages.get(sent.path)
            return page if isinstance(page, Reply) else refusal(404, "no page") if page is None else as_json(page)
        if not sent.path.endswith("/completions"):
            return self.behave(sent)
        with self._lock:
            number = self.tries[sent.asked]
            self.tries[sent.asked] += 1
        replies = self.script.get(sent.asked)
        return replies[min(number, len(replies) - 1)] if replies else self.behave(sent)

    def wait(self, seconds: float) -> None:
        self._gone.wait(seconds)

    @property
    def asked(self) -> list[Sent]:
        """The requests for completions."""
        return [one for one in self.sent if one.path.endswith("/completions")]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serve() -> Iterator[Server]:
    """A server on a port of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            with server.replying(Sent(self.path, headers, body, time.monotonic())) as reply:
                server.wait(reply.delay)
                try:
                    self._send(reply)
                except (BrokenPipeError, ConnectionResetError):
                    server.hung_up += 1
                    self.close_connection = True

        def _send(self, reply: Reply) -> None:
            self.close_connection = reply.cut or reply.drop or reply.raw
            if reply.drop or reply.raw:
                self.wfile.write(reply.body if reply.raw else b"")
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
            for piece in [bytes([one]) for one in body] if reply.drip else [body]:
                self.wfile.write(piece)
                server.wait(reply.drip)

        def log_message(self, *unused: Any) -> None:
            """Says nothing."""

    with _Http(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield server
        server._gone.set()
        http.shutdown()
