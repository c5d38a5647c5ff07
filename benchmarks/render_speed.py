"""`render_all` against TRL's own tokenization of the same rows: `python benchmarks/render_speed.py [ROWS]`.

Two parts, on the real Qwen vocabulary with Qwen3's official template: ROWS short conversations (20,000 by default:
MATH-500 problems and solutions, each text with a number of its own) and a tenth as many long ones (R1
transcripts). TRL's side is `SFTTrainer.__init__` on a model of a few thousand parameters, which chat-formats,
tokenizes, masks and truncates the data set before it trains; what it takes on one row is subtracted. It is timed as it
comes (one process) and with `dataset_num_proc=2`. Ours is the same conversations to `input_ids` and `loss_mask`.

Prints seconds (ours is the median of three runs around TRL's two), rows per second and the ratio, from one process,
after checking that both made the same prompt tokens.
Data and vocabulary lie in `../shared/data`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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


def ours(rows: Sequence[Conversation], tokenizer: Any) -> tuple[float, list[Rendered]]:
    """Seconds, and the rows."""
    traces = [
        Trace(
            Problem(f"p/{place}", "math", (Message("user", question),), ""), reasoning, answer, "stop", None, "t", "s"
        )
        for place, (question, reasoning, answer) in enumerate(rows)
    ]
    begin = time.perf_counter()
    rendered = Qwen3Renderer(Qwen3Options()).bind(tokenizer).render_all(traces)
    return time.perf_counter() - begin, rendered


def trl(rows: Sequence[Conversation], tokenizer: Any, num_proc: int | None) -> tuple[float, Dataset]:
    """Seconds that SFTTrainer takes to be made, and its training set."""
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
        begin = time.perf_counter()
        trainer = SFTTrainer(model, arguments, train_dataset=dataset, processing_class=tokenizer)
        return time.perf_counter() - begin, trainer.train_dataset


def compare(title: str, rows: Sequence[Conversation], tokenizer: Any) -> None:
    """Prints one part; ours runs before and after each run of TRL's, so that a busy moment hits both."""
    overhead, _ = trl(rows[:1], tokenizer, None)
    first, rendered = ours(rows, tokenizer)
    print(f"{title}: {len(rows)} rows, {sum(len(row.input_ids) for row in rendered):,} tokens")
    mine, theirs = [first], {}
    for num_proc in (None, 2):
        seconds, dataset = trl(rows, tokenizer, num_proc)
        theirs[num_proc] = seconds - overhead
        check(rendered, dataset)
        mine.append(ours(rows, tokenizer)[0])
    shown = ", ".join(f"{seconds:.2f}" for seconds in mine)
    usual = sorted(mine)[1]
    print(f"  {'ours, render_all':<24} {usual:>7.2f} s  {len(rows) / usual:>8.0f} rows/s  (median of {shown})")
    for num_proc, seconds in theirs.items():
        name = f"TRL, dataset_num_proc={num_proc}"
        print(f"  {name:<24} {seconds:>7.2f} s  {len(rows) / seconds:>8.0f} rows/s  ratio {seconds / usual:.1f}")


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
    disable_caching()
    tokenizer = qwen_tokenizer()
    compare("short", numbered(list(short_rows()), n_rows), tokenizer)
    compare("long", numbered(list(long_rows()), n_rows // 10), tokenizer)


if __name__ == "__main__":
    main()
