"""What the tiny student is pretrained on: made-up documents from the training splits of coins and digits only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from distillbench_plugins.students.tiny_qwen3.tokenizer import END, END_OF_TEXT, START
from distillbench_tasks.coins import problems as coins
from distillbench_tasks.digits import problems as digits
from distillbench_tasks.splits import Doc, stream

_TOKENIZER_TEXTS = 4000
#: Streams apart from those that the tasks' own training splits are drawn from.
_CORPUS_SEED, _TOKENIZER_SEED = 1000, 2000
_PHRASES = ("Wait, let me re-check {day}.", "Yes, {day} is {n}.", "Let me see: {n}.", "Wait, is it {day}?", "Yes, {n}.")


@dataclass(frozen=True, slots=True)
class Document:
    """A text in two parts, because what is asked is random and little can be learned from it."""

    prompt: str
    response: str


def documents(seed: int) -> Iterator[Document]:
    """Yields documents without end.

    Half are worked coins problems in plain text; the others are chats in which coins and digits problems are answered
    directly, and a little small talk whose thoughts solve nothing.
    """
    rng = random.Random(f"corpus-{seed}")
    coins_docs = stream(coins.draw, "coins", "train", _CORPUS_SEED + seed)
    digits_docs = stream(digits.draw, "digits", "train", _CORPUS_SEED + seed)
    while True:
        kind = rng.choices(("worked", "coins", "talk", "digits"), (0.5, 0.3, 0.08, 0.12))[0]
        if kind == "worked":
            yield _worked(next(coins_docs))
        elif kind == "talk":
            yield _small_talk(rng)
        else:
            yield _direct_answer(next(coins_docs if kind == "coins" else digits_docs))


def tokenizer_texts(seed: int) -> Iterator[str]:
    """Yields the texts that the tokenizer learns its words from."""
    for document in islice(documents(seed), _TOKENIZER_TEXTS):
        yield document.prompt.removeprefix(f"{START}user\n") + document.response
    for doc in islice(stream(coins.draw, "coins", "train", _TOKENIZER_SEED + seed), _TOKENIZER_TEXTS // 4):
        yield "\n".join(
            f"{day} {line}. Wait, let me re-check {day}. Yes, {after}." for day, line, after in coins.sums(doc)
        )


def _worked(doc: Doc) -> Document:
    work = ", ".join(f"{day} {line}" for day, line, _ in coins.sums(doc))
    return Document(f"{doc['question']}\n", f"Work: {work}\nAnswer: {doc['answer']}{END_OF_TEXT}")


def _direct_answer(doc: Doc) -> Document:
    return Document(_chat(doc["question"]), f"\\boxed{{{doc['answer']}}}{END}")


def _small_talk(rng: random.Random) -> Document:
    day = rng.choice(coins.DAYS)
    phrases = rng.choices(_PHRASES, k=rng.randint(1, 5))
    thoughts = " ".join(phrase.format(day=rng.choice(coins.DAYS), n=rng.randint(0, 9)) for phrase in phrases)
    return Document(_chat(f"Talk about {day}."), f"<think>\n{thoughts}\n</think>\n\n{day} is fine.{END}")


def _chat(question: str) -> str:
    return f"{START}user\n{question}{END}\n{START}assistant\n"
