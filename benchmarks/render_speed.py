"""`render_all` against TRL's own tokenization of the same rows: `python benchmarks/render_speed.py [ROWS]`.

Two parts, on the real Qwen vocabulary with Qwen3's official template: ROWS short conversations (20,000 by default:
MATH-500 problems and solutions, each text with a number of its own) and a tenth as many long ones (R1
transcripts). TRL's side is `SFTTrainer.__init__` on a model of a few thousand parameters, which chat-formats,
tokenizes, masks and truncates the data set before it trains; what it takes on one row is subtracted. It is timed as it
comes (one process) and with `dataset_num_proc=2`. Ours is the same conversations to `input_ids` and `loss_mask`.

Prints seconds by the clock and of all cores (ours is the median of three runs around TRL's two), rows per second and
the ratios, from one process, after checking that both made the same prompt tokens. Ours uses every core, so that other
load on the machine slows it down more than TRL's one process: the load average is printed, and should be about 0.
Data and vocabulary lie in `../shared/data`.
"""

from __future__ import annotations

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
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer

from distillbench.records import Message, Problem, Rendered, Trace
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "tests" / "plugins"))

from renderer_helpers import qwen_tokenizer  # noqa: E402

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


def ours(rows: Sequence[Conversation], tokenizer: Any) -> tuple[Cost, list[Rendered]]:
    """What it takes, and the rows."""
    traces = [
        Trace(
            Problem(f"p/{place}", "math", (Message("user", question),), ""), reasoning, answer, "stop", None, "t", "s"
        )
        for place, (question, reasoning, answer) in enumerate(rows)
    ]
    begin = Cost.so_far()
    rendered = Qwen3Renderer(Qwen3Options()).bind(tokenizer).render_all(traces)
    return Cost.so_far() - begin, rendered


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


def compare(title: str, rows: Sequence[Conversation], tokenizer: Any) -> None:
    """Prints one part; ours runs before and after each run of TRL's, so that a busy moment hits both."""
    overhead, _ = trl(rows[:1], tokenizer, None)
    first, rendered = ours(rows, tokenizer)
    print(f"{title}: {len(rows)} rows, {sum(len(row.input_ids) for row in rendered):,} tokens")
    mine, theirs = [first], {}
    for num_proc in (None, 2):
        cost, dataset = trl(rows, tokenizer, num_proc)
        theirs[num_proc] = cost - overhead
        check(rendered, dataset)
        mine.append(ours(rows, tokenizer)[0])
    usual = sorted(mine)[1]
    print(usual.line("ours, render_all", len(rows), f"median of {', '.join(f'{one.wall:.2f}' for one in mine)} s"))
    for num_proc, cost in theirs.items():
        note = f"ratio {cost.wall / usual.wall:.1f} by the clock, {cost.cpu / usual.cpu:.1f} in cpu-s"
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
    tokenizer = qwen_tokenizer()
    compare("short", numbered(list(short_rows()), n_rows), tokenizer)
    compare("long", numbered(list(long_rows()), n_rows // 10), tokenizer)


if __name__ == "__main__":
    main()
