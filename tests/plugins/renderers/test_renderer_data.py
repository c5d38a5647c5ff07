"""Real long transcripts: they parse, what is closed is what a plain count of tags says, and they render."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plugin_helpers import beside, problem, trace
from renderer_helpers import qwen_tokenizer, r1_tokenizer, written

from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.renderers.r1_distill import R1DistillOptions, R1DistillRenderer
from distillbench_plugins.renderers.reasoning import split_reasoning

SKY = ("<|begin_of_thought|>", "<|end_of_thought|>")


def rows(*parts: str) -> list[dict[str, Any]]:
    lines = beside(*parts).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def r1_turns() -> list[str]:
    """The assistant's turns of 153 R1 transcripts: the prompt ends where the first tag begins."""
    transcripts = [row["trace"] for row in rows("traces", "thought_anchors_math_r1distill.jsonl")]
    return [text[text.index("<think>") :] for text in transcripts]


def test_r1_transcripts_are_closed_where_they_hold_a_closing_tag() -> None:
    turns = r1_turns()
    assert len(turns) == 153
    for finish_reason in ("stop", "length"):
        states = [split_reasoning(turn, finish_reason)[2] for turn in turns]  # type: ignore[arg-type]
        assert states == ["closed" if "</think>" in turn else "open" for turn in turns]
    assert states.count("closed") == 144
    for turn in turns:
        reasoning, answer, _ = split_reasoning(turn)
        before, _, after = turn.removeprefix("<think>").partition("</think>")
        assert (reasoning, answer) == (before.strip(), after.strip())


def test_r1_transcripts_with_a_prefilled_tag_are_the_same() -> None:
    renderer = R1DistillRenderer(R1DistillOptions())
    for turn in r1_turns():
        found = renderer.parse((), turn.removeprefix("<think>\n"), "stop", "<think>\n")
        assert (found.reasoning, found.answer, found.reasoning_state) == split_reasoning(turn)


def test_sky_transcripts_are_closed_where_they_hold_a_closing_tag() -> None:
    turns = [text for row in rows("outputs_longcot", "skyt1-14B_aime24.jsonl") for text in row["code"]]
    assert len(turns) == 30
    states = [split_reasoning(turn, "length", SKY)[2] for turn in turns]
    assert states == ["closed" if SKY[1] in turn else "open" for turn in turns]
    assert (states.count("closed"), states.count("open")) == (8, 22)
    # Other tags are asked for, and these are found all the same: no draft is taken for an answer.
    assert [split_reasoning(turn, "length")[2] for turn in turns] == states


@pytest.mark.parametrize("family", ["qwen3", "r1-distill"])
def test_real_transcripts_come_back_from_their_rows(family: str) -> None:
    renderer: Any = (
        Qwen3Renderer(Qwen3Options()).bind(qwen_tokenizer())
        if family == "qwen3"
        else R1DistillRenderer(R1DistillOptions()).bind(r1_tokenizer("qwen"))
    )
    split = [split_reasoning(turn) for turn in r1_turns()]
    traces = [
        trace(reasoning, answer, "stop" if state == "closed" else "length", problem=problem(f"{place}?"))
        for place, (reasoning, answer, state) in enumerate(split)
    ]
    for made, row in zip(traces, renderer.render_all(traces), strict=True):
        prompt = renderer.prompt(made.problem.messages)
        response = row.input_ids[len(prompt.input_ids) :].tolist()
        text = written(renderer, response[:-1] if made.finish_reason == "stop" else response)
        found = renderer.parse(response, text, made.finish_reason, prompt.prefill)
        assert (found.reasoning, found.answer) == (made.reasoning, made.answer)


@pytest.mark.parametrize("name", ["rasbt_ollama_distill_sample.json", "rasbt_openrouter_distill_sample.json"])
def test_teacher_rows_with_thinking_apart_render(name: str) -> None:
    renderer = Qwen3Renderer(Qwen3Options()).bind(qwen_tokenizer())
    found = json.loads(beside("traces", name).read_text(encoding="utf-8"))
    traces = [trace(row["message_thinking"], row["message_content"], problem=problem(row["problem"])) for row in found]
    for made, row in zip(traces, renderer.render_all(traces), strict=True):
        text = written(renderer, row.input_ids[row.loss_mask])
        assert text == f"<think>\n{made.reasoning}\n</think>\n\n{made.answer}<|im_end|>"
