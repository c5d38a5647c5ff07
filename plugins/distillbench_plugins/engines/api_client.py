"""Asks an OpenAI-compatible server, many requests at a time, and asks again where that may help."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Self, TypeVar

import aiohttp
import tenacity

from distillbench.errors import StageError
from distillbench_plugins.openai_api import on_one_line

Answer = TypeVar("Answer")

#: So many requests in a row without any answer, each after all its tries, end the session: the server is down.
MOST_UNANSWERED = 20
#: The longest pause before another try, in seconds, whatever a server asks for.
_LONGEST_PAUSE = 300.0
_CONNECT_TIMEOUT = 30.0
#: Statuses that no other request would fare better with: no valid key, no money, no permission, no such model or path.
_CLOSED = (401, 402, 403, 404)
_PASSING = (408, 409, 425, 429)


class Failed(Exception):
    """A request has no answer; the text says what came last. Trying again would not help."""


class Passing(Failed):
    """A request has no answer, and another try may bring one.

    Args:
        text: What came.
        pause: Seconds that the server asks to wait.
    """

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause


class _Closed(Failed):
    """The server refuses whatever it is asked."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and how it is asked.

    Attributes:
        base_url: The API's address, `/v1` included.
        api_key: None where the server wants none.
        concurrency: The most requests under way at a time.
        timeout: Seconds for one try, from connecting to the last byte.
        retries: Further tries after the first.
        backoff: Seconds before the second try, at most; doubled before each further one.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    concurrency: int
    timeout: float
    retries: int
    backoff: float


class ApiClient:
    """One connection pool; lives in one event loop.

    Args:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._slots = asyncio.Semaphore(server.concurrency)
        self._has_answered = False
        self._unanswered = 0

    async def __aenter__(self) -> Self:
        key = self.server.api_key
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            connector=aiohttp.TCPConnector(limit=0),  # the slots are the limit
            timeout=aiohttp.ClientTimeout(
                total=self.server.timeout, sock_connect=min(_CONNECT_TIMEOUT, self.server.timeout)
            ),
            trust_env=True,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.close()

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[bytes], Answer],
        is_alone: bool = False,
    ) -> Answer:
        """What `read` makes of the server's answer.

        Args:
            path: After the base address; posted to, or got where there is no body.
            body: The JSON to send.
            read: Raises `Passing` for an answer that is none, and `Failed` for one that would come again.
            is_alone: One try, and whatever the server refuses says nothing of other requests.

        Raises:
            Failed: There is no answer to this request.
            StageError: The server refuses every request, or has not answered for a long time.
        """
        tries = 1 if is_alone else 1 + self.server.retries
        again = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(tries),
            wait=self._pause,
            retry=tenacity.retry_if_exception_type(Passing),
            reraise=True,
        )
        try:
            answer: Answer = await again(self._try, path, body, read)
        except Passing as error:
            self._count_unanswered(error)
            raise Failed(f"{self._shown(error)}, after {tries} {'tries' if tries > 1 else 'try'}") from None
        except _Closed as error:
            # With 403 some servers refuse single requests, which their moderation finds fault with.
            if is_alone or (error.status == 403 and self._has_answered):
                raise Failed(self._shown(error)) from None
            raise StageError(
                f"the server at {self.server.base_url} refuses every request: {self._shown(error)}\n"
                f"    hint: look at the engine's `base_url`, `model` and `api_key_env`"
            ) from None
        except Failed as error:
            self._unanswered = 0
            raise Failed(self._shown(error)) from None
        self._has_answered = self._has_answered or body is not None
        self._unanswered = 0
        return answer

    async def look(self, path: str) -> Any:
        """The JSON of a page that only some servers have; None where there is no such page.

        Args:
            path: After the base address; `/../` leads out of its `/v1`.

        Raises:
            Failed: The server does not answer.
            StageError: It refuses the key.
        """
        return await self.ask(path, None, _json)

    async def _try(self, path: str, body: Mapping[str, Any] | None, read: Callable[[bytes], Answer]) -> Answer:
        async with self._slots:
            status, headers, content = await self._exchange(path, body)
        if status == 200:
            return read(content)
        if body is None and status in (404, 405, 501):
            return read(b"null")
        text = f"HTTP {status}: {_words(content)}"
        if status in _CLOSED:
            raise _Closed(text, status)
        if status in _PASSING or status >= 500:
            raise Passing(text, _asked_pause(headers))
        raise Failed(text)

    async def _exchange(self, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        method = "GET" if body is None else "POST"
        url = self.server.base_url.rstrip("/") + path
        try:
            # A redirect would turn a POST into a GET, and might take the prompt elsewhere.
            async with self._http.request(method, url, json=body, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            raise Passing(f"no whole answer within {self.server.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Passing(f"{type(error).__name__}: {error}") from error

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try: what the server asked for, and a random part so that not all come at once."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, Passing) else 0.0
        random = tenacity.wait_random_exponential(multiplier=self.server.backoff, max=60)
        return min(_LONGEST_PAUSE, asked + random(state))

    def _count_unanswered(self, error: Passing) -> None:
        self._unanswered += 1
        if self._unanswered >= MOST_UNANSWERED:
            raise StageError(
                f"the server at {self.server.base_url} has answered none of {self._unanswered} requests in a row; "
                f"the last: {self._shown(error)}\n"
                f"    hint: what has been sampled is kept; see to the server and run again"
            ) from None

    def _shown(self, error: Exception) -> str:
        return on_one_line(str(error), self.server.api_key)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Passing(f"no JSON: {content.decode(errors='replace')}") from error


def _words(content: bytes) -> str:
    """What a server says of an error: the message in its JSON, or all that it sent."""
    text = content.decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else text


def _asked_pause(headers: Mapping[str, str]) -> float:
    """The seconds in a `Retry-After` header, which may also be a date; 0 where there is none that can be read."""
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return 0.0
