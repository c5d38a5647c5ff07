"""Asks an OpenAI-compatible server, many requests at a time, and asks again where that may help."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import tenacity
import yarl

from distillbench.errors import StageError
from distillbench_plugins.servers.secrets import Secrets, on_one_line
from distillbench_plugins.servers.stream import BrokenStream, is_stream, whole_answer

Answer = TypeVar("Answer")

#: So many requests in a row without any answer, each after all its tries, end the session: the server is down.
MOST_UNANSWERED = 20
#: The longest pause before another try, in seconds, whatever a server asks for.
_LONGEST_PAUSE = 300.0
_CONNECT_TIMEOUT = 30.0
#: Statuses that no other request would fare better with: no valid key, no money, no permission, no such model or path.
_CLOSED = (401, 402, 403, 404)
_PASSING = (408, 409, 425, 429)
#: How an answer is asked for: whole; in pieces, where the server has no other way; and without the count of tokens.
_FRAMINGS: Sequence[Mapping[str, Any]] = (
    {},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True},
)
_ABOUT_STREAMS = re.compile(r"\bstream(?:s|ed|ing|_options)?\b", re.IGNORECASE)


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


class Refused(Failed):
    """The server refuses a request."""


class Unanswered(Failed):
    """A request has no answer after all its tries."""


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
        most_unanswered: So many requests in a row without any answer, each after all its tries, end the session.
        hint: What a user is to look at when the server refuses every request.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    concurrency: int
    timeout: float
    retries: int
    backoff: float
    most_unanswered: int = MOST_UNANSWERED
    hint: str = "look at the engine's `base_url`, `model` and `api_key_env`"


class ApiClient:
    """One connection pool; lives in one event loop.

    Args:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.proxy = _proxy(server.base_url)
        self.secrets = Secrets([server.api_key, self.proxy.password if self.proxy else None])
        self._slots = asyncio.Semaphore(server.concurrency)
        self._has_answered = False
        self._unanswered = 0
        self._framing = 0

    async def __aenter__(self) -> Self:
        self._hidden = _HiddenRecords(self.secrets)
        for logger in _loggers():
            logger.addFilter(self._hidden)
        # The environment is not trusted: with it, a .netrc that names the host would replace the key.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the slots are the limit
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self.server.timeout, sock_connect=min(_CONNECT_TIMEOUT, self.server.timeout)
            ),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.close()
        for logger in _loggers():
            logger.removeFilter(self._hidden)

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
            raise Unanswered(f"{self._shown(error)}, after {tries} {'tries' if tries > 1 else 'try'}") from None
        except _Closed as error:
            # With 403 some servers refuse single requests, which their moderation finds fault with.
            if is_alone or (error.status == 403 and self._has_answered):
                raise Failed(self._shown(error)) from None
            raise StageError(
                f"the server at {self.server.base_url} refuses every request: {self._shown(error)}\n"
                f"    hint: {self.server.hint}"
            ) from None
        except Failed as error:
            self._unanswered = 0
            raise type(error)(self._shown(error)) from None
        self._has_answered = self._has_answered or body is not None
        self._unanswered = 0
        return answer

    async def complete(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], Answer]) -> Answer:
        """As `ask`, for completions: where a server refuses to send a whole answer at once, it is asked for pieces.

        Raises:
            Failed: See `ask`.
            StageError: See `ask`.
        """
        while True:
            used = self._framing
            try:
                return await self.ask(path, {**body, **_FRAMINGS[used]}, read)
            except Refused as error:
                if not _ABOUT_STREAMS.search(str(error)) or used + 1 == len(_FRAMINGS):
                    raise
                self._framing = max(self._framing, used + 1)

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
        raise Refused(text)

    async def _exchange(self, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        """What the server sends: the door at which secrets are hidden, before anything is made of it."""
        method = "GET" if body is None else "POST"
        url = self.server.base_url.rstrip("/") + path
        # Of this request alone: what a session sends by default, aiohttp tells a proxy too.
        key = self.server.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            # A redirect would turn a POST into a GET, and might take the prompt elsewhere.
            async with self._http.request(
                method, url, json=body, allow_redirects=False, **_through(self.proxy, url, headers)
            ) as response:
                status, told, content = response.status, dict(response.headers), await response.read()
        except TimeoutError:
            raise Passing(f"no whole answer within {self.server.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Passing(self.secrets.hide(f"{type(error).__name__}: {error}")) from None
        if status == 200 and is_stream(told.get("Content-Type", ""), content):
            content = self._put_together(content)
        return status, told, self.secrets.hide_bytes(content)

    def _put_together(self, content: bytes) -> bytes:
        try:
            return whole_answer(content)
        except BrokenStream as error:
            raise Passing(self.secrets.hide(str(error))) from None
        except RecursionError:
            raise Passing("the stream holds lists in lists without end") from None

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try: what the server asked for, and a random part so that not all come at once."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, Passing) else 0.0
        random = tenacity.wait_random_exponential(multiplier=self.server.backoff, max=60)
        return min(_LONGEST_PAUSE, asked + random(state))

    def _count_unanswered(self, error: Passing) -> None:
        self._unanswered += 1
        if self._unanswered >= self.server.most_unanswered:
            raise StageError(
                f"the server at {self.server.base_url} has answered none of {self._unanswered} requests in a row; "
                f"the last: {self._shown(error)}\n"
                f"    hint: what has been sampled is kept; see to the server and run again"
            ) from None

    @staticmethod
    def _shown(error: Exception) -> str:
        return on_one_line(str(error))


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


class _HiddenRecords(logging.Filter):
    """Hides secrets in what a library logs of an answer."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._secrets.hide(record.getMessage()), ()
        return True


def _loggers() -> Sequence[logging.Logger]:
    return [logging.getLogger(f"aiohttp.{name}") for name in ("client", "internal")]


def _proxy(base_url: str) -> yarl.URL | None:
    """The proxy that the environment names for an address."""
    parts = urlsplit(base_url)
    named = getproxies().get(parts.scheme) or getproxies().get("all")
    return yarl.URL(named) if named and not proxy_bypass(parts.hostname or "") else None


def _through(proxy: yarl.URL | None, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """A request's headers, and how it goes through a proxy: to `https` by a tunnel, which has headers of its own."""
    if proxy is None:
        return {"headers": headers}
    named = f"{proxy.user or ''}:{proxy.password or ''}".encode()
    login = {"Proxy-Authorization": f"Basic {b64encode(named).decode()}"} if named != b":" else {}
    bare = proxy.with_user(None)
    if url.startswith("https:"):
        return {"headers": headers, "proxy": bare, "proxy_headers": login}
    return {"headers": {**headers, **login}, "proxy": bare}
