"""Asks a judge model over an OpenAI-compatible chat API, and keeps each reply that was paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distillbench.errors import DamagedError, GraderError
from distillbench.fingerprint import key_of
from distillbench.sealed import read_sealed, write_sealed
from distillbench_plugins.grading.judge_rubric import MalformedReply, Reply, Unavailable
from distillbench_plugins.servers.client import ApiClient, Failed, Server, Unanswered
from distillbench_plugins.servers.loop import LoopThread
from distillbench_plugins.servers.replies import how_it_ended, parts_of

#: How often a judge is asked anew whose reply is not what it was asked for.
ATTEMPTS = 3
_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a judge is, and how it is asked.

    Attributes:
        model: The model's name there.
        server: The server.
        sampling: Further fields of a request: `temperature`, `max_tokens`.
    """

    model: str
    server: Server
    sampling: Mapping[str, Any]


class JudgeClient:
    """One connection pool for all requests; may be used from many threads.

    Args:
        endpoint: The judge.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._loop = LoopThread()
        self._client = self._loop.run(_opened(endpoint.server))

    def close(self) -> None:
        """Closes the connections."""
        self._loop.close(self._client.__aexit__)

    def ask(self, messages: Callable[[], Sequence[Mapping[str, str]]], read: Callable[[str], Reply]) -> Reply:
        """A judgement; a judge whose reply cannot be read is asked again, a few times.

        Args:
            messages: Makes the request anew for each attempt.
            read: Reads a reply; raises `MalformedReply`.

        Raises:
            GraderError: There is none.
            StageError: The judge refuses every request: a wrong key, model or address.
        """
        problem = ""
        for _ in range(ATTEMPTS):
            try:
                return read(_content(self._post(messages())))
            except MalformedReply as error:
                problem = str(error)
        raise GraderError(
            f"judge {self.endpoint.model!r} gave no judgement that can be read in {ATTEMPTS} attempts: {problem}"
        )

    def _post(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        """The body of the server's answer."""
        body = {"model": self.endpoint.model, "messages": list(messages), **self.endpoint.sampling}
        try:
            return self._loop.run(self._client.complete("/chat/completions", body, bytes))
        except Unanswered as error:
            raise Unavailable(f"the judge did not answer: {error}") from None
        except Failed as error:
            raise GraderError(f"the judge refused the request: {error}") from None


class Replies:
    """The replies that came, one file each, so that a kill pays none of them twice; safe to delete.

    Many processes may use the folder: a file is written aside and renamed into place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, request: Any, ask: Callable[[], Reply]) -> Reply:
        """The reply that is kept for a request, or that `ask` gives; what `ask` raises is kept nowhere.

        Args:
            request: Everything that decides the reply; canonical JSON can be made of it.
            ask: Gets the reply.
        """
        key = key_of(request)
        path = self.folder / key[:2] / f"{key}.json"
        if (kept := _kept(path, key)) is not None:
            return kept
        reply = ask()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, asdict(reply), key)
        return reply


async def _opened(server: Server) -> ApiClient:
    return await ApiClient(server).__aenter__()


def _kept(path: Path, key: str) -> Reply | None:
    try:
        return Reply(**read_sealed(path, key))
    except (FileNotFoundError, DamagedError):  # a damaged reply is asked for again
        return None


def _content(body: bytes) -> str:
    """The text of the message in a chat completion.

    Raises:
        MalformedReply: It is no chat completion, the judge refused, or it was cut off.
    """
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        parts, refusal = parts_of(message.get("content")), message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        shown = body[:_MOST_SHOWN].decode(errors="replace")
        raise MalformedReply(f"the server sent no chat completion: {shown!r}") from None
    if refused := parts.refusal or refusal:
        raise MalformedReply(f"the judge refused: {str(refused)[:_MOST_SHOWN]!r}")
    ending = how_it_ended(choice.get("finish_reason"))
    if ending == "length":
        raise MalformedReply("the judge's reply was cut off: raise `max_tokens`")
    if ending not in ("stop", "unknown"):
        raise MalformedReply(f"the judge's reply ended with finish reason {choice['finish_reason']!r}")
    if not parts.answer.strip():
        raise MalformedReply(f"the judge's message is empty (finish reason {choice.get('finish_reason')!r})")
    return parts.answer
