"""The built-in renderers: right rows have nothing, and the published failure is found."""

from __future__ import annotations

from typing import Any

import pytest
from preflight_factories import asks, evaluation, find, names, only, problem, tokenizer, trace, traces

from distillbench.preflight import check
from distillbench.protocols import Renderer
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer
from distillbench_plugins.renderers.qwen import (
    Qwen3BaseRenderer,
    Qwen3InstructRenderer,
    Qwen3Options,
    Qwen3Renderer,
    Qwen35Renderer,
    QwenOptions,
)

MESSAGES = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
HYBRID = MESSAGES + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
OPENED = MESSAGES + "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
WITH_BOS = "{{ bos_token }}" + MESSAGES + "{% endif %}"
PLAIN = MESSAGES + "{% endif %}"
DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}" + PLAIN


def qwen3(template: str = HYBRID, **options: Any) -> Renderer:
    return Qwen3Renderer(Qwen3Options(**options)).bind(tokenizer(chat_template=template))


def thinks(name: str = "math500") -> Any:
    return asks(evaluation(name, "think"))


RENDERERS = {
    "qwen3": qwen3,
    "qwen3 strip": lambda: qwen3(reasoning="strip"),
    "qwen3 text": lambda: qwen3(reasoning="text"),
    "qwen3 thinking off": lambda: qwen3(reasoning="strip", thinking=False),
    "qwen3 system": lambda: qwen3(system="Be kind."),
    "qwen3-base": lambda: Qwen3BaseRenderer(QwenOptions()).bind(tokenizer(chat_template=HYBRID)),
    "qwen3-instruct-2507": lambda: Qwen3InstructRenderer(QwenOptions()).bind(tokenizer(chat_template=PLAIN)),
    "qwen3.5": lambda: Qwen35Renderer(Qwen3Options()).bind(tokenizer(chat_template=OPENED)),
    "qwen3.5 text": lambda: Qwen35Renderer(Qwen3Options(reasoning="text")).bind(tokenizer(chat_template=OPENED)),
    "qwen3.5 strip": lambda: Qwen35Renderer(Qwen3Options(reasoning="strip")).bind(tokenizer(chat_template=OPENED)),
    "chat-template": lambda: ChatTemplateRenderer(ChatTemplateOptions()).bind(
        tokenizer(adds_bos=True, bos_token="<s>", chat_template=WITH_BOS)
    ),
    "plain": lambda: PlainRenderer(PlainOptions()).bind(tokenizer()),
    "plain with bos": lambda: PlainRenderer(PlainOptions()).bind(tokenizer(adds_bos=True, bos_token="<s>")),
}


@pytest.mark.parametrize("name", RENDERERS)
def test_right_rows_have_nothing(name: str) -> None:
    made = [*traces(5), trace("Mon </thin <b> `</think>`", "`<think>` \\boxed{5}"), trace("你\n\n", "🙂")]
    renderer = RENDERERS[name]()
    assert find(renderer, made) == []
    assert check(renderer, asks(), None) == []


@pytest.mark.parametrize("name", ["qwen3", "qwen3-base", "qwen3-instruct-2507", "qwen3.5", "chat-template"])
def test_native_rows_take_a_prefilled_tag(name: str) -> None:
    assert find(RENDERERS[name](), traces(3), thinks()) == []


@pytest.mark.parametrize("name", ["qwen3 text", "qwen3 strip", "qwen3.5 text", "qwen3.5 strip"])
def test_the_published_failure(name: str) -> None:
    found = only(find(RENDERERS[name](), traces(3), thinks()), "prefilled_tag")
    assert found.kind.severity == "refused"
    assert found.text.startswith("3 of 3 rows (all) never wrote the reasoning tag")
    assert "evaluation '<think>' (308)" in found.shown
    assert find(RENDERERS[name](), traces(3), asks(evaluation(prefill="auto"))) == []


def test_literal_tags_and_the_token_read_alike_and_are_told_apart() -> None:
    shown = only(find(qwen3(reasoning="text"), traces(1), thinks()), "prefilled_tag").shown.splitlines()
    assert " | '<' " in shown[0]
    assert shown[0].split(" | ")[1].split()[:3] == ["'<'", "'think'", "'>'"]
    assert shown[-1] == "first difference at token 14: training has '<' (27), evaluation '<think>' (308)"


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3 thinking off"])
def test_no_prefill_where_training_has_one(name: str) -> None:
    only(find(RENDERERS[name](), traces(3), asks(evaluation(prefill="none"))), "prompt_mismatch")


def test_thinking_off_and_a_prefilled_tag() -> None:
    only(find(RENDERERS["qwen3 thinking off"](), traces(3), thinks()), "prompt_mismatch")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (trace("<think>\nMon 6"), ["doubled_tag"]),
        (trace("Mon 6\n</think>\n"), ["orphan_tag"]),
        (trace(None, "<think>\nMon 6\n\\boxed{5}"), ["orphan_tag"]),
        (trace(None, "Mon 6\n</think>\n\\boxed{5}"), ["orphan_tag"]),
        (trace("<think></think>Mon 6"), ["doubled_tag", "orphan_tag", "empty_reasoning"]),
        (trace("\x00"), ["bad_row"]),
        (trace(" ", " "), ["bad_row"]),
    ],
)
def test_a_teachers_own_tags(made: Any, expected: list[str]) -> None:
    found = names(find(qwen3(), [made, trace()]))
    assert found == expected


def test_reasoning_that_the_prompt_opens_and_the_teacher_has_not() -> None:
    found = find(RENDERERS["qwen3.5"](), [trace(None), trace()])
    assert only(found, "empty_reasoning").text.startswith("1 of 2 rows")


def test_a_teacher_cut_while_reasoning() -> None:
    made = trace("Mon 6", "", "length")
    assert find(qwen3(), [made]) == []
    assert find(RENDERERS["qwen3.5"](), [made]) == []
    assert names(find(qwen3(reasoning="strip"), [made])) == ["no_loss"]


def test_a_templates_default_on_one_side() -> None:
    made = [trace(asked=problem(system="Be brief."))]
    renderer = Qwen3InstructRenderer(QwenOptions()).bind(tokenizer(chat_template=DEFAULT))
    assert "'Y'" in only(find(renderer, made), "one_sided_system").shown
    same = [trace(asked=problem(system="You are Qwen."))]
    assert find(renderer, same) == []
    chosen = Qwen3InstructRenderer(QwenOptions(system="Be kind.")).bind(tokenizer(chat_template=DEFAULT))
    assert find(chosen, made) == []


def test_a_chat_template_that_refuses_a_problem() -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system!') }}{% endif %}" + PLAIN
    renderer = Qwen3InstructRenderer(QwenOptions()).bind(tokenizer(chat_template=template))
    found = check(renderer, asks(problems=[problem(system="Be brief.")]), None)
    assert "No system!" in only(found, "bad_row").text


def test_plain_and_a_tokenizer_whose_template_writes_the_bos() -> None:
    renderer = PlainRenderer(PlainOptions()).bind(tokenizer(bos_token="<s>", chat_template=WITH_BOS))
    found = find(renderer, traces(2))
    assert [(one.name, one.evaluation) for one in found] == [("missing_bos", ""), ("missing_bos", "coins")]
