"""A session of the `vllm` engine: requests of many stages and checkpoints under way together, in a bounded window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.errors import StageError
from distillbench.records import Batch, Checkpoint, Generation, ModelSource, Prompt, Request
from distillbench_plugins.engines.vllm_adapters import Adapters
from distillbench_plugins.engines.vllm_requests import (
    Answer,
    Asked,
    Feed,
    UnderWay,
    as_taken,
    cut,
    sampling_arguments,
    scored,
)
from distillbench_plugins.models.adapters import (
    Adapter,
    check_full,
    content_digest,
    source_folder,
)
from distillbench_plugins.models.merging import merged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

#: How often a request is tried when vLLM gives it up without saying that the request is wrong.
_TRIES = 3
#: How many first tokens are told of; vLLM's default limit.
_LIKELIEST = 20


class VllmSession:
    """See `distillbench.protocols.EngineSession`."""

    def __init__(
        self,
        engine: LLMEngine,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        adapters: Adapters,
        facts: Mapping[str, Any],
        window: int,
        work: Path,
    ) -> None:
        self.engine = engine
        self.source = source
        self.tokenizer = tokenizer
        self.facts = facts
        self.window = window
        self.work = work
        self._adapters = adapters
        self._loras: dict[Path, LoRARequest] = {}
        self._merged: dict[Path, Path] = {}
        self._weights: Path | None = None
        self._numbers = count()
        self._most = engine.vllm_config.model_config.max_model_len

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Reads a checkpoint; adapters are loaded into vLLM, and none of their modules may be left over.

        Raises:
            StageError: It would not be applied, or not all of it.
        """
        if checkpoint.kind == "full":
            return check_full(checkpoint.path, self.source)
        path = checkpoint.path
        adapter = self._adapters.of(path)
        if adapter.why_merge is not None:
            self._merged[path] = merged(path, self.source, self.work / "merged" / content_digest(path)[:16])
            return {**adapter.facts, "merged": adapter.why_merge}
        if path not in self._loras:
            self._attach(adapter)
        return adapter.facts

    def first_token_logprobs(
        self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None
    ) -> list[Mapping[int, float]]:
        """Log-probabilities of the likeliest first tokens after each prompt.

        The prefix cache is emptied before: what it holds would make a second call compute another way.
        """
        self._use(self._weights_of(checkpoint))
        self._empty_cache()
        params = {"max_tokens": 1, "temperature": 0.0, "logprobs": _LIKELIEST, "ignore_eos": True}
        asked = [
            Asked("", Request(str(number), prompt, None, (), 0), checkpoint, prompt.input_ids.tolist(), params)  # type: ignore[arg-type]
            for number, prompt in enumerate(prompts)
        ]
        found: dict[str, Mapping[int, float]] = {}
        for answer in self._run(asked):
            if answer.output is None:
                raise StageError(f"vllm gives no log-probabilities: {answer.error}")
            (first,) = answer.output.outputs[0].logprobs or ({},)
            found[answer.asked.request.sample_id] = {token: one.logprob for token, one in first.items()}
        if any(math.isnan(logprob) for by_token in found.values() for logprob in by_token.values()):
            self._empty_cache()
            self.engine.collective_rpc("zero_cache")
        return [found[str(number)] for number in range(len(prompts))]

    def generate(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Generation]]:
        """Yields a generation for each request that is not skipped, as they finish."""
        asked = (
            Asked(batch.key, request, batch.checkpoint, request.prompt.input_ids.tolist(), sampling_arguments(request))
            for batch in batches
            for request in batch.requests
            if request.sample_id not in batch.skip
        )
        for answer in self._run(asked):
            yield answer.asked.key, self._generation(answer)

    def loglikelihood(self, batch: Batch) -> Iterator[Generation]:
        """Yields the log-likelihoods of each request's continuations, once all of them are there."""
        waiting = {one.sample_id: one for one in batch.requests if one.sample_id not in batch.skip}
        found: dict[str, dict[int, Answer]] = {name: {} for name in waiting}
        for request in waiting.values():
            if not any(request.continuations):
                yield scored(request, {})
        for answer in self._run(self._continuations(batch, waiting)):
            request = answer.asked.request
            parts = found[request.sample_id]
            parts[answer.asked.part] = answer
            if len(parts) == sum(map(bool, request.continuations)):
                yield scored(request, parts)

    @staticmethod
    def _continuations(batch: Batch, waiting: Mapping[str, Request]) -> Iterator[Asked]:
        params = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1, "ignore_eos": True, "detokenize": False}
        for request in waiting.values():
            prompt = request.prompt.input_ids.tolist()
            for part, continuation in enumerate(request.continuations):
                if continuation:
                    yield Asked(batch.key, request, batch.checkpoint, [*prompt, *continuation], params, part)

    def _attach(self, adapter: Adapter) -> None:
        from vllm.lora.request import LoRARequest

        lora = LoRARequest(str(adapter.path), len(self._loras) + 1, str(adapter.path))
        try:
            self.engine.add_lora(lora)
            left = self.engine.collective_rpc("modules_not_applied", args=(lora.lora_int_id,))
        except Exception as error:  # vLLM's own checks of an adapter raise many kinds
            raise StageError(f"adapter {adapter.path} is refused by vLLM: {error}") from error
        unused = sorted({name for names in left for name in names})
        if unused:
            raise StageError(
                f"adapter {adapter.path} would not be applied as a whole: vLLM has no layer for {len(unused)} of its "
                f"modules, {unused[0]} among them\n"
                f"    hint: merge it (`distillbench export CELL@step --merge`) and evaluate the merged checkpoint"
            )
        self._loras[adapter.path] = lora

    def _weights_of(self, checkpoint: Checkpoint | None) -> Path | None:
        """The full checkpoint that must be loaded; None for the untouched student, with or without an adapter."""
        if checkpoint is None or checkpoint.path in self._loras:
            return None
        if checkpoint.kind == "full":
            return checkpoint.path
        if checkpoint.path not in self._merged:
            raise StageError(f"checkpoint {checkpoint.path} was not prepared")
        return self._merged[checkpoint.path]

    def _use(self, weights: Path | None) -> None:
        """Replaces the weights in place. Nothing may be under way."""
        if weights == self._weights:
            return
        folder = weights or source_folder(self.source)
        try:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            self.engine.collective_rpc("refresh_tied_output_layer")
        except Exception as error:  # spoiled files, another architecture, too little memory
            raise StageError(f"vllm cannot load the weights in {folder}: {error}") from error
        self._weights = weights
        self._empty_cache()

    def _empty_cache(self) -> None:
        """Forgets computed prompts: after other weights were loaded, they would be wrong."""
        if not self.engine.reset_prefix_cache():
            raise StageError("vllm does not empty its prefix cache, so what it computes next could be wrong")

    def _run(self, asked: Iterable[Asked]) -> Iterator[Answer]:
        """Keeps at most a window of requests under way, and yields each answer as it comes."""
        feed, under_way = Feed(asked), UnderWay()
        try:
            while under_way or feed.first() is not None:
                yield from self._fill(feed, under_way)
                for output in self._step() if under_way else ():
                    answer = self._answer(output, under_way)
                    if isinstance(answer, Asked):
                        feed.again(answer)
                    elif answer is not None:
                        yield answer
        finally:
            if under_way:  # nobody reads any further
                self.engine.abort_request(list(under_way))

    def _fill(self, feed: Feed, under_way: UnderWay) -> Iterator[Answer]:
        """Hands on what there is room for, and yields what is refused.

        Other weights are loaded only when everything that was asked of the present ones is answered.
        """
        while len(under_way) < self.window and (asked := feed.first()) is not None:
            weights = self._weights_of(asked.checkpoint)
            if weights != self._weights and under_way:
                return
            self._use(weights)
            feed.take()
            refused = self._add(asked, under_way)
            if refused is not None:
                yield refused

    def _add(self, asked: Asked, under_way: UnderWay) -> Answer | None:
        """Hands a request to vLLM; the answer when it is refused."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind

        n, budget = len(asked.ids), asked.params["max_tokens"]
        if n + budget > self._most:
            why = f"prompt of {n} tokens and budget of {budget} exceed the model's {self._most} positions"
            return Answer(asked, {}, error=why)
        number = str(next(self._numbers))
        try:
            params = SamplingParams(**asked.params, output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True)
            effective = as_taken(params)
            lora = self._loras.get(asked.checkpoint.path) if asked.checkpoint is not None else None
            prompt: Any = {"type": "token", "prompt_token_ids": asked.ids}
            self.engine.add_request(number, prompt, params, lora_request=lora)
        except (VLLMClientError, ValueError) as error:  # vLLM's words for a request that it does not take
            return Answer(asked, {}, error=f"vllm refuses the request: {error}")
        under_way[number] = (asked, effective)
        return None

    def _step(self) -> list[Any]:
        try:
            return list(self.engine.step())
        except Exception as error:  # what breaks vLLM breaks every request under way
            raise StageError(
                f"vllm stopped: {type(error).__name__}: {error}\n"
                f"    what was finished is kept, and the next run goes on from there\n"
                f"    hint: where memory ran out, lower max_num_seqs or gpu_memory_utilization of the engine"
            ) from error

    @staticmethod
    def _answer(output: Any, under_way: UnderWay) -> Answer | Asked | None:
        """What came of a request; the request itself when it is to be tried again."""
        if not output.finished or output.request_id not in under_way:
            return None
        asked, effective = under_way.pop(output.request_id)
        reason = output.outputs[0].finish_reason
        if reason in ("stop", "length"):
            return Answer(asked, effective, output)
        if asked.tries + 1 < _TRIES:
            return replace(asked, tries=asked.tries + 1)
        return Answer(asked, effective, error=f"vllm gave the request up {_TRIES} times: {reason}")

    def _generation(self, answer: Answer) -> Generation:
        request, output = answer.asked.request, answer.output
        if output is None:
            return Generation(request.sample_id, error=answer.error, effective=answer.effective)
        ids = tuple(output.outputs[0].token_ids)
        ended = bool(ids) and ids[-1] in request.stop_token_ids
        text = str(
            self.tokenizer.decode(
                ids[:-1] if ended else ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
        return Generation(
            request.sample_id,
            ids,
            cut(text, request.sampling.stop),
            "stop" if output.outputs[0].finish_reason == "stop" else "length",
            n_prompt_tokens=len(answer.asked.ids),
            effective=answer.effective,
        )
