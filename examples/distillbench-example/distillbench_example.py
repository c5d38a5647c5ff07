"""A distillbench plugin to copy: a teacher, a student, a renderer, a filter, a trainer and a benchmark.

A component is a class with a `name`, a frozen dataclass of `Options`, and a docstring whose first line is its summary.
A function with `@hookimpl` for each kind hands the classes over. Heavy imports stand inside methods.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter, Grader, Renderer, Student, Teacher, Trainer
from distillbench.records import Checkpoint, Completion, Judgement, Message, Problem, Prompt, Rendered, Trace

ANSWER, END = "\nAnswer:", "<end>"


@dataclass(frozen=True)
class JsonlOptions:
    """Options of the `example-jsonl` teacher.

    Attributes:
        path: A file of JSON lines with `question`, `reasoning` and `answer`.
        task: The lm-eval task whose grader can say which answers are right; null when there is none.
    """

    path: Path
    task: str | None = None


class JsonlTeacher(Teacher[JsonlOptions]):
    """Traces from a file of JSON lines."""

    name = "example-jsonl"

    def inputs(self):  # the file's content is part of the key: an edited file is read again
        return (self.options.path,)

    def task(self):
        return self.options.task

    def traces(self, context, start):  # `start` rows are stored already, by a run that was interrupted
        lines = self.options.path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[start:], start):
            row = json.loads(line)
            question = (Message("user", row["question"]),)
            problem = Problem(f"row/{number}", "example", question, row["answer"], {"doc": row})
            source = f"{self.options.path.name} line {number + 1}"
            yield Trace(problem, row["reasoning"], row["answer"], "stop", None, self.name, source)


@dataclass(frozen=True)
class TinyOptions:
    """Options of the `example-tiny` student.

    Attributes:
        hidden: Width of the model.
        seed: Of its random weights.
    """

    hidden: int = 64
    seed: int = 0


class TinyStudent(Student[TinyOptions]):
    """A language model of some 70,000 random weights that reads bytes; made in a second."""

    name = "example-tiny"
    builds = True  # so that `build` runs as a stage of its own, once, whatever uses it

    def renderer(self):
        return "example-plain"

    def build(self, folder, context):
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=1)}
        bytewise = Tokenizer(models.BPE({END: 0, **letters}, []))
        bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bytewise.decoder = decoders.ByteLevel()
        PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token=END, pad_token=END).save_pretrained(folder)
        torch.manual_seed(self.options.seed)
        size = {"vocab_size": 257, "hidden_size": self.options.hidden, "intermediate_size": 2 * self.options.hidden}
        depth = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 512}
        LlamaForCausalLM(LlamaConfig(**size, **depth, bos_token_id=None, eos_token_id=0)).save_pretrained(folder)

    def load_tokenizer(self, built):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(built))

    def load_model(self, built, device, weights=None):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(str(weights or built)).to(device)


class PlainRenderer(Renderer):
    r"""Plain text: the messages, a line of reasoning, and `Answer: ...` on a line of its own."""

    name = "example-plain"

    def stop_token_ids(self):
        return (self.tokenizer.eos_token_id,)

    def reasoning_tags(self):
        return None

    def prompt(self, messages, prefill="auto"):
        if prefill == "think":
            raise ValueError("example-plain has no thinking tag to prefill")
        text = "\n".join(message.content for message in messages) + "\n"
        return Prompt(self._ids(text), "")

    def render(self, trace):  # loss on the response and its end, on nothing else
        import numpy as np

        prompt = self.prompt(trace.problem.messages).input_ids
        response = self._ids(f"{trace.reasoning or ''}{ANSWER} {trace.answer}", *self.stop_token_ids())
        mask = np.repeat([False, True], [len(prompt), len(response)])
        return Rendered(np.concatenate([prompt, response]), mask)

    def parse(self, token_ids, text, finish_reason, prefill):
        """What stands before `Answer:` is reasoning; without it the reasoning is still open, and holds no answer."""
        reasoning, closed, answer = text.partition(ANSWER)
        state = "closed" if closed else "open"
        return Completion(text, tuple(token_ids), finish_reason, prefill, reasoning, answer.strip(), state)

    def _ids(self, text, *more):
        import numpy as np

        return np.array([*self.tokenizer.encode(text, add_special_tokens=False), *more], dtype=np.int32)


@dataclass(frozen=True)
class ShortOptions:
    """Options of the `example-short` filter.

    Attributes:
        words: The most words a reasoning may have.
    """

    words: int = 20


class ShortFilter(Filter[ShortOptions]):
    """Rejects traces whose reasoning has too many words."""

    name = "example-short"

    def reason(self, trace, context):
        words = len((trace.reasoning or "").split())
        return None if words <= self.options.words else f"too wordy: {words} words, limit {self.options.words}"


@dataclass(frozen=True)
class LoopOptions:
    """Options of the `example-loop` trainer.

    Attributes:
        steps: Optimizer steps.
        checkpoint_every: Steps between checkpoints.
        batch_size: Traces of one step.
        learning_rate: AdamW's.
    """

    steps: int = 60
    checkpoint_every: int = 30
    batch_size: int = 16
    learning_rate: float = 5e-3


class LoopTrainer(Trainer[LoopOptions]):
    """A plain torch loop over all weights, a full checkpoint every few steps."""

    name = "example-loop"

    def checkpoint_steps(self, counts):  # known before anything runs, so that `plan` can show every evaluation
        every = self.options.checkpoint_every
        return tuple(dict.fromkeys([*range(every, self.options.steps + 1, every), self.options.steps]))

    def train(self, job, context):
        import torch
        from torch.nn.utils.rnn import pad_sequence

        torch.manual_seed(context.seed)
        model = job.student.load_model(job.built, "cpu").train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.options.learning_rate)
        checkpoints, metrics = [], []
        for step in range(1, self.options.steps + 1):
            batch = [job.rows[number] for number in torch.randint(len(job.rows), (self.options.batch_size,)).tolist()]
            ids = [torch.tensor(row.input_ids).long() for row in batch]
            labels = [one.where(torch.from_numpy(row.loss_mask), -100) for one, row in zip(ids, batch, strict=True)]
            padded = {"input_ids": pad_sequence(ids, True), "labels": pad_sequence(labels, True, -100)}  # both B x T
            loss = model(**padded).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            context.progress(step, self.options.steps, f"loss {loss.item():.2f}")
            if step in self.checkpoint_steps(None):
                folder = job.output / f"step-{step}"
                model.save_pretrained(folder)
                checkpoints.append(Checkpoint(folder, "full", step, step * self.options.batch_size))
                metrics.append(json.dumps({"step": step, "train_loss": loss.item()}) + "\n")
        (job.output / "metrics.jsonl").write_text("".join(metrics))
        return checkpoints


class LastNumber(Grader):
    """Compares the last whole number of the answer with the gold answer."""

    name = "example-number"

    def extract(self, answer, problem):  # None: there is no complete answer, so nothing to judge
        numbers = re.findall(r"-?\d+", answer)
        return numbers[-1] if numbers else None

    def judge(self, problem, extracted):
        right = int(extracted) == int(problem.gold)
        return Judgement(right, "" if right else "wrong_answer")


@hookimpl
def distillbench_teachers():
    return [JsonlTeacher]


@hookimpl
def distillbench_students():
    return [TinyStudent]


@hookimpl
def distillbench_renderers():
    return [PlainRenderer]


@hookimpl
def distillbench_filters():
    return [ShortFilter]


@hookimpl
def distillbench_trainers():
    return [LoopTrainer]


@hookimpl
def distillbench_benchmarks():
    return [LastNumber]
