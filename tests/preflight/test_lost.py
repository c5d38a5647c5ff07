"""Messages that a template leaves out are found; what templates rightly change is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import asks, find, only, tokenizer, traces

from distillbench.preflight import check
from distillbench.preflight.lost import lost_message
from distillbench.records import Message, Problem
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer

ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "<|im_start|>{{ m['role'] }}\n{{ CONTENT }}<|im_end|>\n"
LOOP = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK
SYSTEM, SHOT, ANSWER, ASKED = "Answer in a box.", "Tom has 5 coins?", "It is 5.", "Mon has 6 coins?"
CONVERSATION = (
    Message("system", SYSTEM),
    Message("user", SHOT),
    Message("assistant", f"<think>\nMon 5\n</think>\n\n{ANSWER}"),
    Message("user", ASKED),
)
#: By name: a template, and the role of the first message that it loses.
LOSES = {
    "iterates over parts": (
        LOOP.replace(
            "{{ CONTENT }}",
            "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}",
        ),
        "system",
    ),
    "parts of users alone": (
        LOOP.replace(
            "{{ CONTENT }}",
            "{% if m['role'] == 'user' %}{% for c in m['content'] %}{{ c.text }}{% endfor %}"
            "{% else %}{{ m['content'] }}{% endif %}",
        ),
        "user",
    ),
    "drops system": (
        "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + ASK,
        "system",
    ),
    "keeps the last turn": ("{% set m = messages[-1] %}" + TURN + ASK, "system"),
    "drops examples' answers": (
        "{% for m in messages %}{% if m['role'] != 'assistant' %}" + TURN + "{% endif %}{% endfor %}" + ASK,
        "assistant",
    ),
    "cuts": (LOOP.replace("CONTENT", "m['content'][:-3]"), "system"),
}  # fmt: skip
#: What templates do with right.
KEEPS = {
    "as it is": LOOP,
    "strips": LOOP.replace("CONTENT", "m['content'] | trim"),
    "drops earlier reasoning": LOOP.replace("CONTENT", "m['content'].split('</think>')[-1].lstrip('\\n')"),
    "folds system into the user's turn": (
        "{% set s = messages[0]['content'] %}{% for m in messages[1:] %}<|im_start|>{{ m['role'] }}\n"
        "{% if loop.last %}{{ s }}\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}" + ASK
    ),
    "says more": "<|im_start|>system\nYou are kind.<|im_end|>\n" + LOOP,
}


def renderer(template: str, **options: Any) -> Any:
    text = template.replace("CONTENT", "m['content']")
    return ChatTemplateRenderer(ChatTemplateOptions(**options)).bind(tokenizer(chat_template=text))


def lost(template: str, messages: tuple[Message, ...] = CONVERSATION, **options: Any) -> Message | None:
    made = renderer(template, **options)
    return lost_message(made, messages, made.prompt(messages))


@pytest.mark.parametrize("name", LOSES)
def test_a_template_that_leaves_text_out_is_found(name: str) -> None:
    template, role = LOSES[name]
    found = lost(template)
    assert found is not None
    assert found.role == role
    asked = asks(problems=[Problem("coins/0", "coins", CONVERSATION, "5")])
    finding = only(check(renderer(template), asked, None), "lost_text")
    assert finding.kind.severity == "refused"
    assert f"leaves the {role} message" in finding.text
    assert "chat_template" in finding.text or "system_in_user" in finding.text


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("space", ["", " ", "\n\n"])
def test_what_templates_do_with_right_is_not(name: str, space: str) -> None:
    messages = tuple(Message(one.role, f"{one.content}{space}") for one in CONVERSATION)
    assert lost(KEEPS[name], messages) is None


def test_an_example_that_repeats_the_question_is_missed_too() -> None:
    messages = (Message("user", ASKED), Message("assistant", ANSWER), Message("user", ASKED))
    assert lost("{% for m in messages[1:] %}" + TURN + "{% endfor %}" + ASK, messages) == messages[0]
    assert lost(LOOP, messages) is None


def test_system_text_in_the_users_turn_is_not_lost() -> None:
    template, _ = LOSES["drops system"]
    assert lost(template, system_in_user=True) is None
    raises = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + LOOP
    asked = asks(problems=[Problem("coins/0", "coins", CONVERSATION, "5")])
    assert "system_in_user: true" in only(check(renderer(raises), asked, None), "bad_row").text
    assert check(renderer(raises, system_in_user=True), asked, None) == []
    made = renderer(raises, system_in_user=True, system="Be kind.")
    assert f"user\nBe kind.\n\n{ASKED}" in made.show(made.prompt((Message("user", ASKED),)))
    assert "user\nBe kind.<|im_end|>" in made.show(made.prompt((Message("system", "Be kind."),)))


def test_training_rows_are_looked_at_too() -> None:
    template, _ = LOSES["keeps the last turn"]
    messages = (Message("user", SHOT), Message("assistant", ANSWER), Message("user", ASKED))
    rows = traces(3, asked=Problem("coins/0", "coins", messages, "5"))
    assert only(find(renderer(template), rows), "lost_text").text.startswith("3 of 3 rows (all)")


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_a_template_that_writes_everything_loses_nothing(texts: list[str]) -> None:
    messages = tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts))  # type: ignore[arg-type]
    made = renderer(LOOP)
    assert lost_message(made, messages, made.prompt(messages)) is None
