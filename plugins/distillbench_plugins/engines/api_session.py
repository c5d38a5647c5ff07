"""A session of the `api` engine: requests of many stages and checkpoints under way together on one server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from distillbench.errors import StageError
from distillbench.records import Batch, Checkpoint, Generation, ModelSource, Prompt, Request
from distillbench_plugins.engines import api_adapters, api_wire
from distillbench_plugins.engines.scoring import with_scores
from distillbench_plugins.servers.client import ApiClient, Failed, Server
from distillbench_plugins.servers.loop import LoopThread, Turns
from distillbench_plugins.servers.secrets import on_one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Fields that are no sampling parameters.
_WHAT_IS_ASKED = ("model", "messages", "prompt")


@dataclass(frozen=True, slots=True)
class Asking:
    """How requests are worded; see the engine's options.

    Attributes:
        model: The model's name at the server.
        mode: `tokens` or `chat`.
        extra_body: Further fields.
        omit: Sampling parameters that are left out.
        max_tokens_field: What the budget is called.
    """

    model: str
    mode: Literal["tokens", "chat"]
    extra_body: Mapping[str, Any]
    omit: tuple[str, ...]
    max_tokens_field: str


class ApiSession:
    """An open connection; see `distillbench.protocols.EngineSession`.

    Args:
        server: Where to ask.
        asking: How.
        tokenizer: The student's, for `mode: tokens`.
        source: Gives the student's files, with which adapters are compared.
    """

    def __init__(
        self,
        server: Server,
        asking: Asking,
        tokenizer: PreTrainedTokenizerBase | None,
        source: Callable[[], ModelSource],
    ) -> None:
        self.server = server
        self.asking = asking
        self.tokenizer = tokenizer
        self._source = source
        self._known: str | None = None
        self._version = ""
        self._names: dict[Checkpoint, str] = {}
        self._loop = LoopThread()
        self._client, self._turns = self._loop.run(_opened(server))

    @property
    def facts(self) -> Mapping[str, Any]:
        """Which server and model were asked, and how."""
        served_by = {"server": f"{self._known} {self._version}".strip()} if self._known else {}
        return {
            "engine": "api",
            "base_url": self.server.base_url,
            "model": self.asking.model,
            "mode": self.asking.mode,
            **served_by,
        }

    def look(self) -> None:
        """Looks whether the server is there, takes the key, and in `mode: tokens` does what that needs.

        Raises:
            StageError: It does not.
        """
        try:
            self._loop.run(self._look())
        except Failed as error:
            raise StageError(
                f"the server at {self.server.base_url} does not answer as it should: {error}\n"
                f"    hint: see whether it runs, and whether the engine's `base_url` leads to it, `/v1` included"
            ) from error

    def close(self) -> None:
        """Cancels what is under way and closes the connections."""
        self._loop.close(self._client.__aexit__)

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Has the server load an adapter, under a name made of its content.

        Raises:
            StageError: It is no adapter, or the server does not load it.
        """
        adapter = api_adapters.read(checkpoint, self._source())
        name = api_adapters.served_name(adapter)
        body = {"lora_name": name, "lora_path": str(checkpoint.path.resolve())}
        try:
            self._loop.run(self._client.ask("/load_lora_adapter", body, bytes, is_alone=True))
        except Failed as error:
            if "already been loaded" not in str(error):  # the name says that it is the same
                raise api_adapters.not_loaded(adapter, error) from error
        self._names[checkpoint] = name
        return {**adapter.facts, "served_as": name}

    def first_token_logprobs(
        self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None
    ) -> Sequence[Mapping[int, float]]:
        """Log-probabilities of the 20 likeliest first tokens, in nats by token id.

        Raises:
            StageError: The server does not tell them.
        """
        return [self._scored(self._first_token(prompt, checkpoint)) for prompt in prompts]

    def generate(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Generation]]:
        """Yields (key of the stage, generation) as they finish; see `concurrency`."""
        works = (
            self._generation(batch, request)
            for batch in batches
            for request in batch.requests
            if request.sample_id not in batch.skip
        )
        return self._loop.as_finished(works, self.server.concurrency)

    def loglikelihood(self, batch: Batch) -> Iterator[Generation]:
        """Yields the log-likelihoods of each request's continuations, as they finish.

        Raises:
            StageError: The server does not tell them.
        """
        works = (
            self._scores(batch.checkpoint, request) for request in batch.requests if request.sample_id not in batch.skip
        )
        return self._loop.as_finished(works, self.server.concurrency)

    async def _look(self) -> None:
        models = await self._client.look("/models")
        cards = models.get("data") if isinstance(models, dict) else None
        owners = [card.get("owned_by") for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        self._known = next((owner for owner in owners if owner in api_wire.TAKE_ALL), None)
        if self._known == "vllm":
            version = await self._client.look("/../version")
            told = version.get("version") if isinstance(version, dict) else ""
            self._version = on_one_line(told) if isinstance(told, str) else ""
        if self.tokenizer is not None:
            ids = self.tokenizer.encode("a", add_special_tokens=False)
            body = {**self._asked(None, ids), **api_wire.first_token_fields()}
            await self._client.ask("/completions", body, partial(api_wire.check_tokens, prompt=ids))

    async def _generation(self, batch: Batch, request: Request) -> tuple[str, Generation]:
        is_chat = self.asking.mode == "chat"
        server = self._known or (None if is_chat else "vllm")  # only vLLM takes tokens as they are
        if why := api_wire.penalties_mistake(request.sampling, server):
            raise StageError(why)
        body = self._chat_body(batch, request) if is_chat else self._completion_body(batch, request)
        read: Callable[[bytes], Generation] = (
            partial(api_wire.read_chat, request=request) if is_chat else partial(self._read_tokens, request=request)
        )
        try:
            # vLLM 0.32 without a GPU may apply an adapter to requests without one that it computes in the same step,
            # and a server does not say what it runs on.
            async with self._turns.of(batch.checkpoint is not None):
                found = await self._client.complete("/chat/completions" if is_chat else "/completions", body, read)
        except Failed as error:
            found = Generation(request.sample_id, error=str(error))
        effective = {name: value for name, value in body.items() if name not in _WHAT_IS_ASKED}
        return batch.key, replace(found, effective=effective)

    def _read_tokens(self, content: bytes, request: Request) -> Generation:
        """A completion with its tokens, none of which spells a secret: what is kept of them cannot be hidden."""
        found = api_wire.read_completion(content, request, self._decode)
        if self.server.api_key and self._client.secrets.are_in(self._decode(found.token_ids)):
            raise Failed("the completion's tokens spell the API key")
        return found

    def _chat_body(self, batch: Batch, request: Request) -> dict[str, Any]:
        if request.prompt.prefill or not request.messages:
            raise StageError(
                f"sample {request.sample_id}: `mode: chat` sends messages, and leaves the assistant's turn to the "
                f"server; "
                + (f"{request.prompt.prefill!r} would have to stand in it" if request.messages else "it has none")
                + "\n    hint: `mode: tokens`, or the student `hosted` with its renderer, which begins no turn"
            )
        return {
            "model": self._model(batch.checkpoint),
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            **self._kept(api_wire.sampled_fields(request, self.asking.max_tokens_field, bool(self._known))),
            **({"skip_special_tokens": False} if self._known else {}),
            **self.asking.extra_body,
        }

    def _completion_body(self, batch: Batch, request: Request) -> dict[str, Any]:
        return {
            **self._asked(batch.checkpoint, request.prompt.input_ids.tolist()),
            **self._kept(api_wire.completion_fields(request)),
            **self.asking.extra_body,
        }

    def _kept(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in self.asking.omit}

    def _asked(self, checkpoint: Checkpoint | None, ids: Sequence[int]) -> dict[str, Any]:
        return {"model": self._model(checkpoint), "prompt": list(ids)}

    def _model(self, checkpoint: Checkpoint | None) -> str:
        return self.asking.model if checkpoint is None else self._names[checkpoint]

    def _decode(self, ids: Sequence[int]) -> str:
        tokenizer: Any = self.tokenizer  # which `mode: tokens` always has
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    async def _first_token(self, prompt: Prompt, checkpoint: Checkpoint | None) -> dict[int, float]:
        if not len(prompt.input_ids):
            raise StageError("the prompts hold no tokens, so that no first token can be looked at: see `mode: tokens`")
        body = {**self._asked(checkpoint, prompt.input_ids.tolist()), **api_wire.first_token_fields()}
        return await self._client.ask("/completions", body, api_wire.read_first_token)

    def _scored(self, work: Coroutine[Any, Any, dict[int, float]]) -> dict[int, float]:
        try:
            return self._loop.run(work)
        except Failed as error:
            raise StageError(f"the server does not tell what its first tokens would be: {error}") from error

    async def _scores(self, checkpoint: Checkpoint | None, request: Request) -> Generation:
        ids = request.prompt.input_ids.tolist()
        if not ids:
            raise StageError(
                "log-likelihoods are those of tokens, and a chat API takes none\n"
                "    hint: a student with a tokenizer, and a server or an engine that takes tokens"
            )
        try:
            found = [await self._score(checkpoint, ids, each) for each in request.continuations]
        except Failed as error:
            return Generation(request.sample_id, error=str(error))
        return with_scores(request, found)

    async def _score(self, checkpoint: Checkpoint | None, ids: list[int], each: Sequence[int]) -> tuple[float, bool]:
        body = {**self._asked(checkpoint, [*ids, *each]), **api_wire.scored_fields()}
        return await self._client.ask("/completions", body, partial(api_wire.read_score, continuation=each))


async def _opened(server: Server) -> tuple[ApiClient, Turns]:
    return await ApiClient(server).__aenter__(), Turns()
