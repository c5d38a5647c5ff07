"""The `transformers` engine: batched generation on this machine, wherever transformers runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Engine, EngineSession, Student
from distillbench.records import Checkpoint, Generation, Request

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TransformersOptions:
    """Options of the `transformers` engine.

    Attributes:
        batch_size: Prompts generated together; affects speed and memory only.
    """

    batch_size: Annotated[int, Gt(0)] = field(default=64, metadata={"key": False})


class TransformersEngine(Engine):
    """Generates with transformers: batched, one checkpoint after the other on one loaded base model.

    Greedy is greedy: nothing of the model's own generation_config is used. Sampled completions are drawn under a seed
    of each sample's own, so that the batch a sample is in does not change its random numbers.
    """

    name = "transformers"
    Options = TransformersOptions

    @contextmanager
    def open(self, student: Student, built: Path | None, context: Context) -> Iterator[EngineSession]:
        """Loads the student once."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        yield _Session(student, built, device, self.options.batch_size)
        if device == "cuda":
            torch.cuda.empty_cache()


class _Session:
    def __init__(self, student: Student, built: Path | None, device: str, batch_size: int) -> None:
        self.student = student
        self.built = built
        self.device = device
        self.batch_size = batch_size
        self.tokenizer = student.load_tokenizer(built)
        self.base = student.load_model(built, device).eval()

    def generate(
        self, requests: Sequence[Request], checkpoint: Checkpoint | None, skip: frozenset[str] = frozenset()
    ) -> Iterator[Generation]:
        """Yields a generation for each request that is not in `skip`, batch by batch.

        Batches are made from all requests: a run that goes on after a kill repeats a batch as a whole, because
        padding changes the last bits of the logits, and with them a greedy choice now and then.
        """
        model = self._with_weights(checkpoint)
        try:
            for batch in batches(requests, self.batch_size):
                if not all(request.sample_id in skip for request in batch):
                    found = self._generate_batch(model, batch)
                    yield from (one for one in found if one.sample_id not in skip)
        finally:
            self._without_weights(model, checkpoint)

    def _with_weights(self, checkpoint: Checkpoint | None) -> Any:
        if checkpoint is None:
            return self.base
        if checkpoint.kind == "full":
            return self.student.load_model(self.built, self.device, weights=checkpoint.path).eval()
        from peft import PeftModel

        return PeftModel.from_pretrained(self.base, str(checkpoint.path), is_trainable=False).eval()

    def _without_weights(self, model: Any, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and checkpoint.kind == "adapter":
            self.base = model.unload()

    def _generate_batch(self, model: Any, batch: Sequence[Request]) -> list[Generation]:
        """One batch; when memory runs out, its halves."""
        import torch

        too_long = self._too_long(model, batch)
        if too_long:
            fitting = [request for request in batch if request.sample_id not in too_long]
            failed = [Generation(sample_id, error=why) for sample_id, why in too_long.items()]
            return failed + (self._generate_batch(model, fitting) if fitting else [])
        try:
            return self._generate_ids(model, batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                return [Generation(batch[0].sample_id, error=f"out of memory: {error}")]
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._generate_batch(model, batch[:half]) + self._generate_batch(model, batch[half:])

    @staticmethod
    def _too_long(model: Any, batch: Sequence[Request]) -> dict[str, str]:
        """The requests whose prompt and budget exceed the model's positions, with what to say of them."""
        most = model.config.max_position_embeddings
        return {
            request.sample_id: f"prompt of {len(request.prompt.input_ids)} tokens and budget of "
            f"{request.sampling.max_tokens} exceed the model's {most} positions"
            for request in batch
            if len(request.prompt.input_ids) + request.sampling.max_tokens > most
        }

    def _generate_ids(self, model: Any, batch: Sequence[Request]) -> list[Generation]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        first = batch[0]
        input_ids, attention_mask = left_padded(batch, self.device)
        settings = GenerationConfig(
            max_new_tokens=first.sampling.max_tokens,
            do_sample=False,
            eos_token_id=list(first.stop_token_ids),
            pad_token_id=first.stop_token_ids[0],
        )
        model.generation_config = GenerationConfig()
        processors = LogitsProcessorList(
            [] if first.sampling.temperature == 0 else [_SeededSampling(batch, self.device)]
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=settings,
                logits_processor=processors,
            )
        new = output[:, input_ids.shape[1] :].tolist()  # B x new tokens
        return [self._generation(request, ids) for request, ids in zip(batch, new, strict=True)]

    def _generation(self, request: Request, ids: list[int]) -> Generation:
        end = next((place for place, token in enumerate(ids) if token in request.stop_token_ids), None)
        kept = ids if end is None else ids[: end + 1]
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Generation(request.sample_id, tuple(kept), text, "length" if end is None else "stop")


class _SeededSampling:
    """Draws each row's token from its own random numbers, by adding Gumbel noise to the warped logits.

    The argmax of logits plus Gumbel noise is a draw from their softmax, so that generate() can stay greedy.

    Source: Gumbel (1954); Maddison et al. (2014), "A* Sampling", section 2.
    """

    def __init__(self, batch: Sequence[Request], device: str) -> None:
        import torch
        from transformers import (
            LogitsProcessorList,
            MinPLogitsWarper,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        sampling = batch[0].sampling
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k > 0:
            self.warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            self.warpers.append(MinPLogitsWarper(sampling.min_p))
        self.device = device
        self.generators = [torch.Generator().manual_seed(request.seed) for request in batch]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Adds the noise. `scores` is float[B, V]."""
        import torch

        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=one, dtype=torch.float64) for one in self.generators]
        )
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
        warped: torch.Tensor = self.warpers(input_ids, scores.float())
        return warped.double() + noise.to(self.device)


def batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Groups requests that can be generated together, short prompts first, in an order that only they decide."""

    def kind(request: Request) -> tuple[Any, ...]:
        sampling = request.sampling
        warping = (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
        return (sampling.max_tokens, warping, request.stop_token_ids)

    ordered = sorted(requests, key=lambda one: (kind(one), len(one.prompt.input_ids), one.sample_id))
    batch: list[Request] = []
    for request in ordered:
        if batch and (len(batch) == size or kind(request) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def left_padded(batch: Sequence[Request], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as int64[B, T] with padding on the left, and their mask."""
    import torch

    longest = max(len(request.prompt.input_ids) for request in batch)
    input_ids = torch.full((len(batch), longest), batch[0].stop_token_ids[0], dtype=torch.long)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    for row, request in enumerate(batch):
        ids = torch.as_tensor(request.prompt.input_ids.astype("int64"))
        input_ids[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    return input_ids.to(device), mask.to(device)


@hookimpl
def distillbench_engines() -> Iterable[type[Engine]]:
    """The transformers engine."""
    return [TransformersEngine]
