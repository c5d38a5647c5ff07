"""`render_all` against TRL's own tokenization of the same rows: `python benchmarks/render_speed.py [ROWS]`.

With the real Qwen3 and Llama 3.1 tokenizers and their official templates, each on ROWS short conversations (20,000 by
default: MATH-500 problems and solutions, each text with a number of its own) and on a tenth as many long ones (R1
transcripts). TRL's side is `SFTTrainer.__init__` on a model of a few thousand parameters, which chat-formats,
tokenizes, masks and truncates the data set before it trains; what it takes on one row is subtracted. It is timed as it
comes (one process) and, on Qwen3, with `dataset_num_proc=2`. Ours is the same conversations to `input_ids` and
`loss_mask`, with the comparison of a sample of the texts that is part of it.

Prints seconds by the clock and of all cores, rows per second and the ratios, from one process, after checking that
both made the same prompt tokens, and that every row has the tokens that the tokenizer itself makes of it. The first
run of a tokenizer makes its faster form, which the others find made: it has a line of its own, and the other lines are
the shortest run of each side. Other load on the machine slows down whichever side runs; the load average is printed,
and should be about 0. Data and tokenizers lie in `../shared/data`.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "true"  # what a user's own process has

from datasets import Dataset, disable_caching
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer

from distillbench.records import Message, Problem, Rendered, Trace
from distillbench_plugins.renderers.base import SegmentRenderer
from distillbench_plugins.renderers.llama3 import Llama3Options, Llama3Renderer
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer

DATA = Path(__file__).parents[2] / "shared" / "data"
Conversation = tuple[str, str, str]  # question, reasoning, answer


def numbered(rows: Sequence[Conversation], n: int) -> list[Conversation]:
    """`n` rows, each question, reasoning and answer with its own number, so that no text comes twice."""
    repeated = enumerate(islice(cycle(rows), n))
    return [
        (f"({place}) {asked}", f"({place}) {thought}", f"({place}) {told}")
        for place, (asked, thought, told) in repeated
    ]


def short_rows() -> Iterator[Conversation]:
    """MATH-500 problems; the solution is the reasoning."""
    for line in (DATA / "math500" / "math500.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["problem"], row["solution"], f"\\boxed{{{row['answer']}}}"


def long_rows() -> Iterator[Conversation]:
    """R1 transcripts that were finished."""
    for line in (DATA / "traces" / "thought_anchors_math_r1distill.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        _, _, turn = row["trace"].partition("<think>\n")
        reasoning, closed, answer = turn.partition("\n</think>\n\n")
        if closed:
            yield row["problem"], reasoning, answer


@dataclass(frozen=True, order=True)
class Cost:
    """What some work took.

    Attributes:
        wall: Seconds by the clock; on a busy machine longer than the work itself.
        cpu: Seconds of all cores, child processes included.
    """

    wall: float
    cpu: float

    @classmethod
    def so_far(cls) -> Cost:
        """What this process has taken up to now."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def line(self, name: str, n_rows: int, note: str) -> str:
        """One line of the table."""
        return f"  {name:<26} {self.wall:>7.2f} s {self.cpu:>8.2f} cpu-s {n_rows / self.wall:>7.0f} rows/s  {note}"


def tokenizer_of(name: str) -> Any:
    """A published tokenizer with its template."""
    folder = DATA / "tokenizers" / "real" / name
    told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    with gzip.open(folder / "tokenizer.json.gz", "rt", encoding="utf-8") as file:
        tokenizer = Tokenizer.from_str(file.read())
    end = told["eos_token"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=told["chat_template"], eos_token=end,
        pad_token=told.get("pad_token") or end, bos_token=told.get("bos_token"),
    )  # fmt: skip


def traces_of(rows: Sequence[Conversation]) -> list[Trace]:
    """The conversations as a teacher's traces."""
    return [
        Trace(
            Problem(f"p/{place}", "math", (Message("user", question),), ""), reasoning, answer, "stop", None, "t", "s"
        )
        for place, (question, reasoning, answer) in enumerate(rows)
    ]


def ours(rows: Sequence[Conversation], renderer: SegmentRenderer[Any]) -> tuple[Cost, list[Rendered]]:
    """What it takes, and the rows."""
    traces = traces_of(rows)
    begin = Cost.so_far()
    rendered = renderer.bind(renderer.tokenizer).render_all(traces)
    return Cost.so_far() - begin, rendered


def check_each(rows: Sequence[Conversation], renderer: SegmentRenderer[Any], rendered: Sequence[Rendered]) -> None:
    """Sees that every row has the tokens that the tokenizer itself makes."""
    slow = renderer.bind(renderer.tokenizer)
    slow._tokeniser._fast = "to compare with"
    for row, same in zip(rendered, slow.render_all(traces_of(rows)), strict=True):
        assert row.input_ids.tolist() == same.input_ids.tolist()
    print(f"  the same tokens as by the tokenizer itself in all {len(rendered):,} rows")


def trl(rows: Sequence[Conversation], tokenizer: Any, num_proc: int | None) -> tuple[Cost, Dataset]:
    """What it takes to make an SFTTrainer, and its training set."""
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{answer}"}],
            }
            for question, reasoning, answer in rows
        ]
    )
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder, max_length=32768, dataset_num_proc=num_proc, report_to=[], use_cpu=True, bf16=False
        )
        begin = Cost.so_far()
        trainer = SFTTrainer(model, arguments, train_dataset=dataset, processing_class=tokenizer)
        return Cost.so_far() - begin, trainer.train_dataset


def compare(
    title: str, rows: Sequence[Conversation], renderer: SegmentRenderer[Any], workers: Sequence[int | None]
) -> None:
    """Prints one part; ours runs before and after each run of TRL's, so that a busy moment hits both."""
    tokenizer = renderer.tokenizer
    overhead, _ = trl(rows[:1], tokenizer, None)
    first, rendered = ours(rows, renderer)
    print(f"{title}: {len(rows)} rows, {sum(len(row.input_ids) for row in rendered):,} tokens")
    mine, theirs = [ours(rows, renderer)[0]], {}
    for num_proc in workers:
        cost, dataset = trl(rows, tokenizer, num_proc)
        theirs[num_proc] = min(cost - overhead, theirs.get(num_proc, cost))
        check(rendered, dataset)
        mine += [ours(rows, renderer)[0], ours(rows, renderer)[0]]
    check_each(rows, renderer, rendered)
    best = min(mine)
    print(first.line("ours, first run", len(rows), ""))
    print(best.line("ours, render_all", len(rows), f"shortest of {', '.join(f'{one.wall:.2f}' for one in mine)} s"))
    for num_proc, cost in theirs.items():
        note = f"ratio {cost.wall / best.wall:.1f} by the clock, {cost.cpu / best.cpu:.1f} in cpu-s"
        print(cost.line(f"TRL, dataset_num_proc={num_proc}", len(rows), note), flush=True)


def check(rendered: Sequence[Rendered], dataset: Dataset) -> None:
    """Sees that both made the same tokens without loss, and nearly the same with loss, of some rows.

    TRL's rows end with the line break after the end-of-turn token, which ours, and a student's, do not.
    """
    for place in range(0, len(rendered), max(1, len(rendered) // 50)):
        row, other = rendered[place], dataset[place]
        masked = int((~row.loss_mask).sum())
        assert other["input_ids"][:masked] == row.input_ids[:masked].tolist()
        assert abs(len(other["input_ids"]) - len(row.input_ids)) < 5


def main() -> None:
    """Prints both parts."""
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    disable_caching()
    qwen = Qwen3Renderer(Qwen3Options()).bind(tokenizer_of("qwen3"))
    llama = Llama3Renderer(Llama3Options(reasoning="text")).bind(tokenizer_of("llama3_1"))
    short, long = numbered(list(short_rows()), n_rows), numbered(list(long_rows()), n_rows // 10)
    for name, renderer, workers in (("Qwen3", qwen, (None, 2, None)), ("Llama 3.1", llama, (None, None))):
        compare(f"{name}, short", short, renderer, workers)
        compare(f"{name}, long", long, renderer, workers)


if __name__ == "__main__":
    main()
