"""The `judge` grader: a judge model marks the answer by a published rubric, several times over."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le

from distillbench.errors import GraderError, StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import UNSHOWN, Context, Grader
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.judge_rubric import BEST, Reply, Rubric, Unavailable, read_rubric
from distillbench_plugins.servers.options import check_base_url, check_model, check_variable
from distillbench_plugins.servers.secrets import Secrets, read_key

if TYPE_CHECKING:
    from distillbench_plugins.grading.judge_client import JudgeClient, Replies
    from distillbench_plugins.servers.client import Server

#: So many answers in a row to which the judge did not reply at all end the stage: it is down.
_MOST_UNANSWERED = 10
#: Seconds before the second try of a request, at most; doubled before each further one.
_BACKOFF = 0.5
#: Requests that wait in the pool for each one that is under way.
_READ_AHEAD = 3


@dataclass(frozen=True)
class JudgeOptions:
    """Options of the `judge` grader.

    Attributes:
        model: The judge model's name at the API; must be given. Pin a dated name: an alias moves, and a key does not
            notice.
        base_url: The API's address, `/v1` included. Any server that speaks the OpenAI chat API will do.
        rubric: The text file by which answers are judged; each criterion has a line `- name: what it means`.
        repeats: Judgements of each answer.
        temperature: Of the judge; null leaves it to the server. At 0 the repeats say little about the judge's spread.
        max_tokens: Budget of one judgement, reasoning included; null leaves it to the server.
        api_key_variable: The environment variable that holds the API key; null where the server wants none.
        max_concurrency: Requests under way at a time.
        timeout: Seconds for one request.
        max_retries: Retries of a request after a time-out, a cut connection, or a status 408, 409, 429 or 5xx.
    """

    model: str | None = None
    base_url: str = field(default="https://api.openai.com/v1", metadata=UNSHOWN)
    rubric: Path | None = None
    repeats: Annotated[int, Ge(1)] = 3
    temperature: Annotated[float, Ge(0), Le(2)] | None = 1.0
    max_tokens: Annotated[int, Ge(1)] | None = 1024
    api_key_variable: str | None = field(default="OPENAI_API_KEY", metadata={"key": False} | UNSHOWN)
    max_concurrency: Annotated[int, Ge(1)] = field(default=8, metadata={"key": False})
    timeout: Annotated[float, Gt(0)] = field(default=120.0, metadata={"key": False})
    max_retries: Annotated[int, Ge(0)] = field(default=5, metadata={"key": False})

    def __post_init__(self) -> None:
        """Refuses an address that is none, or that may hold a secret."""
        check_base_url(self.base_url)
        check_variable("api_key_variable", self.api_key_variable)
        check_model(self.model)


class Judge(Grader[JudgeOptions]):
    """Grades open-ended answers: a judge model marks them by a published rubric, several times over.

    Any answer part that is not empty is a complete answer. The judge sees the question, the gold answer where there is
    one, and the answer part. The outcome is `graded`. A judge that does not reply, or not as it was asked to, is an
    error and never a mark.
    """

    name = "judge"

    def inputs(self) -> Sequence[Path]:
        """The rubric."""
        return [self.options.rubric] if self.options.rubric else []

    def refuse_unusable(self) -> None:
        """Refuses to go on without a model, a rubric, or the key.

        Raises:
            GraderError: What is missing.
        """
        if self.options.model is None:
            raise GraderError(
                "no judge model is named: a judge is chosen by whoever evaluates\n"
                "    name it in the evaluation: grader_options: {model: NAME, base_url: https://HOST/v1}"
            )
        if self.options.rubric is None:
            raise GraderError("no rubric is named, and the task has none\n    grader_options: {rubric: rubric.md}")
        read_rubric(self.options.rubric)
        self._api_key()

    @contextmanager
    def open(self, context: Context) -> Iterator[JudgeGrading]:
        """Opens the connection.

        Raises:
            GraderError: See `check`.
        """
        from distillbench_plugins.grading.judge_client import Endpoint, JudgeClient, Replies

        self.refuse_unusable()
        about = self.options
        sampling = {"temperature": about.temperature, "max_tokens": about.max_tokens}
        kept = {name: value for name, value in sampling.items() if value is not None}
        client = JudgeClient(Endpoint(str(about.model), self._server(), kept))
        pool = ThreadPoolExecutor(about.max_concurrency, thread_name_prefix="judge")
        try:
            yield JudgeGrading(about, read_rubric(self.inputs()[0]), client, Replies(context.work / "replies"), pool)
        finally:
            pool.shutdown(cancel_futures=True)
            client.close()

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The answer part, unless it is empty."""
        return answer.strip() or None

    def _server(self) -> Server:
        from distillbench_plugins.servers.client import Server

        about = self.options
        return Server(
            about.base_url,
            self._api_key(),
            concurrency=about.max_concurrency,
            timeout=about.timeout,
            retries=about.max_retries,
            backoff=_BACKOFF,
            most_unanswered=sys.maxsize,  # it is answers that are counted, each of which may be asked for several times
            hint=f"look at `model` ({about.model}), `base_url` and the API key",
        )

    def _api_key(self) -> str | None:
        try:
            key = read_key(self.options.api_key_variable)
        except ValueError as error:
            raise GraderError(
                f"the judge: {error}\n"
                f"    set it, or, for a server that wants none, grader_options: {{api_key_variable: null}}"
            ) from None
        if Secrets([key]).are_in(json.dumps([self.options.base_url, self.options.model])):
            raise GraderError("the judge's options hold the API key itself, and are stored with the results")
        return key


class JudgeGrading:
    """A judge that is ready."""

    def __init__(
        self, options: JudgeOptions, rubric: Rubric, client: JudgeClient, replies: Replies, pool: ThreadPoolExecutor
    ) -> None:
        self.options = options
        self.rubric = rubric
        self._client = client
        self._replies = replies
        self._pool = pool
        self._unanswered = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        """The judge, and the rubric it went by."""
        return {
            "judge": self.options.model,
            "host": urlsplit(self.options.base_url).netloc,
            "repeats": self.options.repeats,
            "temperature": self.options.temperature,
            "rubric": self.rubric.digest,
        }

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """One judgement for each answer, in order; requests are under way for the next answers meanwhile."""
        most = max(1, _READ_AHEAD * self.options.max_concurrency // self.options.repeats)
        asked: deque[list[Future[Reply]]] = deque()
        try:
            for problem, answer in answers:
                asked.append(
                    [self._pool.submit(self._reply, problem, answer, number) for number in range(self.options.repeats)]
                )
                if len(asked) > most:
                    yield self._judgement(asked.popleft())
            while asked:
                yield self._judgement(asked.popleft())
        finally:
            for future in (future for futures in asked for future in futures):
                future.cancel()

    def _reply(self, problem: Problem, answer: str, number: int) -> Reply:
        """One judgement of an answer."""
        about = self.options
        decides = [
            Judge.version, about.model, about.base_url, about.temperature, about.max_tokens, self.rubric.text,
            [[message.role, message.content] for message in problem.messages], problem.gold, answer, number,
        ]  # fmt: skip
        return self._replies.once(
            decides, lambda: self._client.ask(lambda: self.rubric.messages(problem, answer), self.rubric.read)
        )

    def _judgement(self, futures: Sequence[Future[Reply]]) -> Judgement:
        """The mean of the replies that came, where at least half did.

        Raises:
            StageError: The judge refuses every request, or has not replied for a long time.
        """
        replies: list[Reply] = []
        errors: list[GraderError] = []
        for future in futures:
            try:
                replies.append(future.result())
            except GraderError as error:
                errors.append(error)
        is_silent = not replies and all(isinstance(error, Unavailable) for error in errors)
        self._unanswered = self._unanswered + 1 if is_silent else 0
        if self._unanswered >= _MOST_UNANSWERED:
            raise StageError(f"the judge did not reply to {_MOST_UNANSWERED} answers in a row: {errors[0]}")
        if 2 * len(replies) < len(futures):
            return Judgement(None, error=f"{len(errors)} of {len(futures)} judgements failed: {errors[0]}")
        return Judgement(None, "", _scores(replies))


def _scores(replies: Sequence[Reply]) -> dict[str, float]:
    """Means over the repeats, from 0 to 1; `spread` is the standard deviation of the overall marks between them."""
    marks = [reply.overall / BEST for reply in replies]
    criteria = {name: fmean(reply.criteria[name] / BEST for reply in replies) for name in replies[0].criteria}
    spread = {"spread": stdev(marks)} if len(marks) > 1 else {}  # one judgement says nothing of it
    return {"score": fmean(marks), **spread, **criteria, "n_judgements": float(len(marks))}


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Grader]]:
    """The grader of open-ended answers."""
    return [Judge]
