"""Asks a judge model over an OpenAI-compatible chat API, and keeps each reply that was paid for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distillbench.errors import DamagedError, GraderError, StageError
from distillbench.fingerprint import key_of
from distillbench.sealed import read_sealed, write_sealed
from distillbench_plugins.grading.judge_rubric import MalformedReply, Reply
from distillbench_plugins.openai_api import on_one_line

#: How often a judge is asked anew whose reply is not what it was asked for.
ATTEMPTS = 3
#: Sent where a server wants no key: the client does not go without one.
_NO_KEY = "none"
_MOST_SHOWN = 300


class Unavailable(GraderError):
    """The judge did not answer after the client's retries, whatever it was asked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a judge is, and how it is asked.

    Attributes:
        model: The model's name there.
        base_url: The API's address, `/v1` included.
        api_key: None where the server wants none.
        sampling: Further fields of a request: `temperature`, `max_tokens`.
        timeout: Seconds for one request.
        max_retries: Of the client, after time-outs, cut connections, and the statuses 408, 409, 429 and 5xx.
    """

    model: str
    base_url: str
    api_key: str | None = field(repr=False)
    sampling: Mapping[str, Any]
    timeout: float
    max_retries: int


class JudgeClient:
    """One connection pool for all requests; may be used from many threads.

    Args:
        endpoint: The judge.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @cached_property
    def _client(self) -> Any:
        import openai

        return openai.OpenAI(
            api_key=self.endpoint.api_key or _NO_KEY,
            base_url=self.endpoint.base_url,
            timeout=self.endpoint.timeout,
            max_retries=self.endpoint.max_retries,
        )

    def open(self) -> None:
        """Makes the client, before threads share it."""
        self._client  # noqa: B018 - the property makes it

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

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

    def _post(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The body of the server's answer."""
        import openai

        about, create = self.endpoint, self._client.chat.completions.with_raw_response.create
        try:
            # The body is read by ourselves: the client takes whatever JSON a server sends for a completion.
            return str(create(model=about.model, messages=list(messages), **about.sampling).text)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise StageError(
                f"the judge at {about.base_url} refuses every request: {self._told(error)}\n"
                f"    look at `model` ({about.model}), `base_url` and the API key"
            ) from error
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
            raise Unavailable(f"the judge did not answer: {self._told(error)}") from error
        except openai.OpenAIError as error:
            raise GraderError(f"the judge refused the request: {self._told(error)}") from error

    def _told(self, error: Exception) -> str:
        """What went wrong, on a line, and never with the key in it, which servers repeat."""
        cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
        return on_one_line(f"{type(error).__name__}: {error}{cause}", self.endpoint.api_key)


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


def _kept(path: Path, key: str) -> Reply | None:
    try:
        return Reply(**read_sealed(path, key))
    except (FileNotFoundError, DamagedError):  # a damaged reply is asked for again
        return None


def _content(body: str) -> str:
    """The text of the message in a chat completion.

    Raises:
        MalformedReply: It is no chat completion, the judge refused, or it was cut off.
    """
    import pydantic

    try:
        [choice, *_] = _body_model().model_validate_json(body).choices
    except (pydantic.ValidationError, ValueError) as error:
        raise MalformedReply(f"the server sent no chat completion: {body[:_MOST_SHOWN]!r}") from error
    if choice.message.refusal:
        raise MalformedReply(f"the judge refused: {choice.message.refusal[:_MOST_SHOWN]!r}")
    if choice.finish_reason == "length":
        raise MalformedReply("the judge's reply was cut off: raise `max_tokens`")
    if choice.message.content is None:
        raise MalformedReply(f"the judge's message is empty (finish reason {choice.finish_reason!r})")
    return str(choice.message.content)


def _body_model() -> Any:
    """What is read of a chat completion, as a pydantic model."""
    import pydantic

    message = pydantic.create_model("Message", content=(str | None, None), refusal=(str | None, None))
    choice = pydantic.create_model("Choice", message=(message, ...), finish_reason=(str | None, None))
    return pydantic.create_model("Body", choices=(list[choice], pydantic.Field(min_length=1)))  # type: ignore[valid-type]
