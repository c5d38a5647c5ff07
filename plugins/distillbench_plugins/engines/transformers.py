"""The `transformers` engine: batched generation on this machine, wherever transformers runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Gt

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Engine, EngineSession, Student
from distillbench.records import AdapterShape, Batch, Checkpoint, Generation, Prompt, Request
from distillbench_plugins.engines import continuous
from distillbench_plugins.engines.grouping import Penalties, SeededSampling, groups, left_padded, stop_strings
from distillbench_plugins.engines.scoring import BatchRow, Gathering, last_logits, rows_of, scored
from distillbench_plugins.models.adapters import check_full, read_adapter

#: How many first tokens are told of.
_LIKELIEST = 64


@dataclass(frozen=True)
class TransformersOptions:
    """Options of the `transformers` engine.

    Attributes:
        batch_size: Prompts generated together; affects speed and memory only.
        continuous: Whether a greedy completion that ends makes room for the next prompt at once (transformers'
            continuous batching, 5.8 or later); null for yes on a GPU, because on a CPU it is many times slower.
    """

    batch_size: Annotated[int, Gt(0)] = field(default=64, metadata={"key": False})
    continuous: bool | None = field(default=None, metadata={"key": False})


class TransformersEngine(Engine[TransformersOptions]):
    """Generates with transformers: batched, one checkpoint after the other on one loaded base model.

    Greedy is greedy: nothing of the model's own generation_config is used. Sampled completions are drawn under a seed
    of each sample's own, so that the batch a sample is in does not change its random numbers.
    """

    name = "transformers"
    rank: ClassVar[int] = 20

    def why_not(self, student: Student) -> str:
        """There is nothing to load."""
        return "" if student.has_tokenizer else "the model has no files here"

    @contextmanager
    def open(
        self, student: Student, built: Path | None, checkpoints: Sequence[Checkpoint | AdapterShape], context: Context
    ) -> Iterator[EngineSession]:
        """Loads the student once."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        wanted = self.options.continuous if self.options.continuous is not None else device == "cuda"
        yield _Session(student, built, device, self.options.batch_size, wanted)
        if device == "cuda":
            torch.cuda.empty_cache()


class _Session:
    def __init__(
        self, student: Student, built: Path | None, device: str, batch_size: int, wants_continuous: bool
    ) -> None:
        self.student = student
        self.built = built
        self.device = device
        self.batch_size = batch_size
        self.wants_continuous = wants_continuous
        self.is_continuous = wants_continuous and continuous.is_there()
        self.tokenizer = student.load_tokenizer(built)
        self.base = self._load()
        self._changes_base: set[Path] = set()
        self._loaded: Checkpoint | None = None
        self._model = self.base

    @property
    def facts(self) -> Mapping[str, Any]:
        """What computes, and in which number format."""
        import torch
        import transformers

        return {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": self.device,
            "dtype": str(self.base.dtype).removeprefix("torch."),
            **({"continuous_batching": self._told_of_continuous()} if self.wants_continuous else {}),
        }

    def _told_of_continuous(self) -> str:
        return "greedy completions, no stop strings, no penalties" if self.is_continuous else "not in this transformers"

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Compares the weights of a checkpoint with those that the model expects, by name and by shape.

        Raises:
            StageError: It would not be applied, or not all of it.
        """
        source = self.student.source(self.built)
        if checkpoint.kind == "full":
            return check_full(checkpoint.path, source)
        adapter = read_adapter(checkpoint.path, source)
        if adapter.why_merge is not None:
            self._changes_base.add(checkpoint.path)
        return adapter.facts

    def first_token_logprobs(
        self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None
    ) -> list[Mapping[int, float]]:
        """Log-probabilities of the likeliest first tokens after each prompt."""
        model = self._with_weights(checkpoint)
        logits = last_logits(model, [prompt.input_ids.tolist() for prompt in prompts], 1, self.device)
        logprobs = logits[:, -1].float().log_softmax(-1)  # B x V
        values, tokens = logprobs.topk(min(_LIKELIEST, logprobs.shape[-1]))
        return [dict(zip(ids, found, strict=True)) for ids, found in zip(tokens.tolist(), values.tolist(), strict=True)]

    def generate(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Generation]]:
        """Yields a generation for each request that is not skipped, group by group.

        Groups are made from all requests: a run that goes on after a kill repeats a group as a whole, because padding
        changes the last bits of the logits, and with them a greedy choice now and then.
        """
        for batch in batches:
            model = self._with_weights(batch.checkpoint)
            flowing, rest = self._divided(batch.requests)
            for found in self._flow(model, [one for one in flowing if one.sample_id not in batch.skip]):
                yield batch.key, found
            for group in groups(rest, self.batch_size):
                if not all(request.sample_id in batch.skip for request in group):
                    for found in self._generate_group(model, group):
                        if found.sample_id not in batch.skip:
                            yield batch.key, found

    def _divided(self, requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
        """The requests that go through continuous batching, and the others."""
        flowing = [one for one in requests if self.is_continuous and continuous.takes(one)]
        return flowing, [one for one in requests if not (self.is_continuous and continuous.takes(one))]

    def _flow(self, model: Any, requests: Sequence[Request]) -> Iterator[Generation]:
        """Through continuous batching, as they finish."""
        too_long = self._too_long(model, requests)
        yield from (Generation(sample_id, error=why) for sample_id, why in too_long.items())
        fitting = [request for request in requests if request.sample_id not in too_long]
        for answer in continuous.generate(model, fitting, self.batch_size, self.device):
            if answer.error is not None:
                yield Generation(answer.request.sample_id, error=answer.error)
            else:
                yield self._generation(answer.request, list(answer.token_ids))

    def loglikelihood(self, batch: Batch) -> Iterator[Generation]:
        """Yields the log-likelihoods of each request's continuations, when the last of them is there.

        Groups are made from all requests, as in `generate`.
        """
        model = self._with_weights(batch.checkpoint)
        gathering = Gathering(batch.requests, _most_positions(model))
        yield from (one for one in gathering.at_once() if one.sample_id not in batch.skip)
        for group in _in_groups(rows_of(gathering.fitting), self.batch_size):
            wanted = {sample_id for row in group for (sample_id, _), _ in row.parts if gathering.is_open(sample_id)}
            if wanted - batch.skip:
                yield from (one for one in self._score(model, group, gathering) if one.sample_id not in batch.skip)

    def _with_weights(self, checkpoint: Checkpoint | None) -> Any:
        """The model with a checkpoint's weights, which stay until others are asked for."""
        if checkpoint == self._loaded:
            return self._model
        if self._loaded is not None and self._is_beside_base(self._loaded):
            self.base = self._model.unload()
        self._model, self._loaded = self.base, None
        if checkpoint is not None and checkpoint.kind == "full":
            self._model = self._load(weights=checkpoint.path)
        elif checkpoint is not None:
            self._model = self._adapted(checkpoint)
        self._loaded = checkpoint
        return self._model

    def _load(self, weights: Path | None = None) -> Any:
        return self.student.load_model(self.built, self.device, weights=weights).eval()

    def _is_beside_base(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is low-rank products beside the base's weights, which peft can take off again.

        Biases, whole modules and PiSSA's residual weights take the place of the base's own, and stay there.
        """
        return checkpoint.kind == "adapter" and checkpoint.path not in self._changes_base

    def _adapted(self, checkpoint: Checkpoint) -> Any:
        from peft import PeftModel

        is_beside = self._is_beside_base(checkpoint)
        model = self.base if is_beside else self._load()
        try:
            return PeftModel.from_pretrained(model, str(checkpoint.path), is_trainable=False).eval()
        except BaseException:
            if is_beside:  # some of its layers may have been put in already
                self.base = self._model = self._load()
            raise

    def _generate_group(self, model: Any, group: Sequence[Request]) -> list[Generation]:
        """One group; when memory runs out, its halves."""
        import torch

        too_long = self._too_long(model, group)
        if too_long:
            fitting = [request for request in group if request.sample_id not in too_long]
            failed = [Generation(sample_id, error=why) for sample_id, why in too_long.items()]
            return failed + (self._generate_group(model, fitting) if fitting else [])
        try:
            return self._generate_ids(model, group)
        except torch.OutOfMemoryError as error:
            if len(group) == 1:
                return [Generation(group[0].sample_id, error=f"out of memory: {error}")]
        torch.cuda.empty_cache()
        half = len(group) // 2
        return self._generate_group(model, group[:half]) + self._generate_group(model, group[half:])

    @staticmethod
    def _too_long(model: Any, group: Sequence[Request]) -> dict[str, str]:
        """The requests whose prompt and budget exceed the model's positions, with what to say of them."""
        most = _most_positions(model)
        return {
            request.sample_id: f"prompt of {len(request.prompt.input_ids)} tokens and budget of "
            f"{request.sampling.max_tokens} exceed the model's {most} positions"
            for request in group
            if most is not None and len(request.prompt.input_ids) + request.sampling.max_tokens > most
        }

    def _generate_ids(self, model: Any, group: Sequence[Request]) -> list[Generation]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        first = group[0]
        pad = first.stop_token_ids[0]
        prompts = [request.prompt.input_ids.tolist() for request in group]
        input_ids, attention_mask = left_padded(prompts, pad, self.device)
        settings = GenerationConfig(
            max_new_tokens=first.sampling.max_tokens,
            do_sample=False,
            eos_token_id=list(first.stop_token_ids),
            pad_token_id=pad,
        )
        model.generation_config = GenerationConfig()
        drawn: list[Any] = [Penalties(first.sampling, input_ids, attention_mask)] if first.sampling.penalties else []
        drawn += [] if first.sampling.temperature == 0 else [SeededSampling(group, self.device)]
        stops = [stop_strings(self.tokenizer, first.sampling.stop, input_ids.shape[1])] if first.sampling.stop else []
        with torch.inference_mode():
            output = model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=settings,
                logits_processor=LogitsProcessorList(drawn),
                stopping_criteria=StoppingCriteriaList(stops),
            )
        new = output[:, input_ids.shape[1] :].tolist()  # B x new tokens
        return [self._generation(request, ids) for request, ids in zip(group, new, strict=True)]

    def _generation(self, request: Request, ids: list[int]) -> Generation:
        end = next((place for place, token in enumerate(ids) if token in request.stop_token_ids), None)
        kept, text = ids if end is None else ids[: end + 1], self._text(ids[:end])
        found = [place + len(stop) for stop in request.sampling.stop if (place := text.find(stop)) >= 0]
        if found:
            text = text[: min(found)]
            kept = kept[: self._shortest(kept, text)]
        return Generation(
            request.sample_id,
            tuple(kept),
            text,
            "length" if end is None and not found else "stop",
            n_prompt_tokens=len(request.prompt.input_ids),
            effective=_effective(request),
        )

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _shortest(self, ids: Sequence[int], text: str) -> int:
        """The number of tokens that a text takes."""
        return next(n for n in range(len(ids) + 1) if self._text(ids[:n]).startswith(text))

    def _score(self, model: Any, rows: Sequence[BatchRow], gathering: Gathering) -> list[Generation]:
        """The requests that are whole with a group of rows; when memory runs out, its halves are computed."""
        import torch

        try:
            return list(gathering.take(scored(model, rows, self.device)))
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                open_ones = {sample_id for (sample_id, _), _ in rows[0].parts if gathering.is_open(sample_id)}
                return [gathering.failed(sample_id, f"out of memory: {error}") for sample_id in sorted(open_ones)]
        torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._score(model, rows[:half], gathering) + self._score(model, rows[half:], gathering)


def _in_groups(rows: Sequence[BatchRow], size: int) -> Iterator[Sequence[BatchRow]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _most_positions(model: Any) -> int | None:
    """The model's positions; None where its configuration names no limit."""
    most: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return most


def _effective(request: Request) -> dict[str, Any]:
    """The sampling parameters as they are applied: what greedy makes meaningless is not there."""
    sampling = request.sampling
    drawn = {
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": request.seed,
    }
    return {
        "temperature": sampling.temperature,
        **(drawn if sampling.temperature else {}),
        **sampling.penalties,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "stop_token_ids": list(request.stop_token_ids),
    }


@hookimpl
def distillbench_engines() -> Iterable[type[Engine]]:
    """The transformers engine."""
    return [TransformersEngine]
