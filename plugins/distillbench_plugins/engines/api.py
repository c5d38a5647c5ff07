"""The `api` engine: an OpenAI-compatible server, hosted models and `vllm serve` among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import UNSHOWN, Context, Engine, EngineSession, Student
from distillbench.records import AdapterShape, Checkpoint, Resources
from distillbench_plugins.servers.options import check_base_url, check_fields, check_model, check_variable
from distillbench_plugins.servers.secrets import Secrets, read_key

Mode = Literal["tokens", "chat"]
#: Fields of a request that the engine sets from the evaluation.
_WHAT_IS_ASKED = frozenset({"model", "messages", "prompt", "stream", "n", "return_token_ids", "skip_special_tokens"})
_HOW_IT_IS_DRAWN = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed"}
    | {"stop", "stop_token_ids", "ignore_eos", "presence_penalty"}
)
#: Files that a worker has open beside its connections.
_OTHER_FILES = 128


@dataclass(frozen=True)
class ApiOptions:
    """Options of the `api` engine.

    Attributes:
        base_url: The API's address, `/v1` included; by default where `vllm serve` listens.
        model: The model's name there; null for the student's own name.
        mode: `tokens` sends the prompt's token ids, as a local engine does, and gets token ids back: for `vllm serve`.
            `chat` sends messages and gets text: for any server. null: `tokens` for a student with a tokenizer.
        api_key_env: The environment variable that holds the API key; null where the server wants none.
        extra_body: Further fields of every request, as the server names them: `{reasoning_effort: high}`.
        omit: Sampling parameters that are not sent because the server refuses them; it then uses its own.
        max_tokens_field: What the server calls the token budget in `mode: chat`.
        concurrency: Requests under way at a time.
        timeout: Seconds for one try, from connecting to the last token.
        retries: Further tries after a time-out, a cut connection, an answer that is none, or a status 408, 409, 425,
            429 or 5xx.
        backoff: Seconds before the second try, at most; doubled before each further one, to a minute.
    """

    base_url: str = field(default="http://127.0.0.1:8000/v1", metadata=UNSHOWN)
    model: str | None = None
    mode: Mode | None = None
    api_key_env: str | None = field(default=None, metadata={"key": False} | UNSHOWN)
    extra_body: Mapping[str, Any] = field(default_factory=dict, metadata=UNSHOWN)
    omit: tuple[Literal["temperature", "top_p", "seed"], ...] = ()
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: Annotated[int, Ge(1)] = field(default=32, metadata={"key": False})
    timeout: Annotated[float, Gt(0)] = field(default=1800.0, metadata={"key": False})
    retries: Annotated[int, Ge(0)] = field(default=5, metadata={"key": False})
    backoff: Annotated[float, Ge(0)] = field(default=1.0, metadata={"key": False})

    def __post_init__(self) -> None:
        """Checks options against each other."""
        check_base_url(self.base_url)
        check_variable("api_key_env", self.api_key_env)
        check_model(self.model)
        check_fields("extra_body", self.extra_body)
        if taken := sorted((_WHAT_IS_ASKED | _HOW_IT_IS_DRAWN) & set(self.extra_body)):
            raise ValueError(f"extra_body {', '.join(taken)}: the engine sets that itself, from the evaluation")


class ApiEngine(Engine[ApiOptions]):
    """Asks an OpenAI-compatible server: a hosted model, or `vllm serve`.

    No error becomes an empty answer: what fails is tried again, then it is a `generation_error` with the server's
    words. A server that refuses every request, or that is down, ends the session.
    """

    name = "api"
    rank: ClassVar[int] = 10
    is_remote = True

    def resources(self, student: Student) -> Resources:
        """One core: the server has the model."""
        return Resources()

    @contextmanager
    def open(
        self, student: Student, built: Path | None, checkpoints: Sequence[Checkpoint | AdapterShape], context: Context
    ) -> Iterator[EngineSession]:
        """Looks whether the server is there and can do what is asked of it.

        Raises:
            StageError: It is not, or cannot; or the key is missing.
        """
        from distillbench_plugins.engines.api_session import ApiSession, Asking
        from distillbench_plugins.servers.client import Server

        about = self.options
        mode: Mode = about.mode or ("tokens" if student.has_tokenizer else "chat")
        if mode == "tokens" and not student.has_tokenizer:
            raise StageError(
                f"engine 'api': `mode: tokens` needs a student with a tokenizer, and {student.name!r} has none\n"
                f"    hint: `mode: chat`, or the student `hf` with the model's files"
            )
        _check_connections(about.concurrency)
        server = Server(about.base_url, self._api_key(), about.concurrency, about.timeout, about.retries, about.backoff)
        asking = Asking(
            model=about.model or student.served_name(built),
            mode=mode,
            extra_body=about.extra_body,
            omit=about.omit,
            max_tokens_field=about.max_tokens_field,
        )
        tokenizer = student.load_tokenizer(built) if mode == "tokens" else None
        session = ApiSession(server, asking, tokenizer, lambda: student.source(built))
        try:
            session.look()
            yield session
        finally:
            session.close()

    def _api_key(self) -> str | None:
        try:
            key = read_key(self.options.api_key_env)
        except ValueError as error:
            raise StageError(
                f"engine 'api': {error}\n    hint: set it; for a server that wants none, leave `api_key_env` out"
            ) from None
        if Secrets([key]).are_in(json.dumps([self.options.base_url, self.options.extra_body, self.options.model])):
            raise StageError(
                "engine 'api': its options hold the API key itself, and are stored with the results\n"
                "    hint: take it out; `api_key_env` alone says where it is"
            )
        return key


def _check_connections(concurrency: int) -> None:
    """Refuses more connections than the shell lets a process open: they would fail one by one."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < concurrency + _OTHER_FILES:
        raise StageError(
            f"engine 'api': `concurrency: {concurrency}` needs as many open files, and this shell allows {most}\n"
            f"    hint: ulimit -n {concurrency + _OTHER_FILES}, or a smaller `concurrency`"
        )


@hookimpl
def distillbench_engines() -> Iterable[type[Engine]]:
    """The API engine."""
    return [ApiEngine]
