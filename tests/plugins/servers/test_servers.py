"""What servers of many kinds send: how an answer ended, its parts, its pieces, and what goes with it and is odd."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_helpers import answers, asks, check_is_error, engine_threads, opened
from api_server import Reply, Server, as_json, chat, refusal, serve
from hypothesis import given, settings
from hypothesis import strategies as st

from distillbench.outcomes import decide
from distillbench.reasoning_formats import join_apart
from distillbench.records import Generation, Message, Problem
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.renderers.hosted import HostedRenderer, HostedRendererOptions
from distillbench_plugins.servers.loop import LoopThread
from distillbench_plugins.servers.stream import BrokenStream, is_stream, whole_answer

GOLD = Problem("p", "math", (Message("user", "?"),), "5")
BOXED = "\\boxed{5}"
APART = join_apart("2 + 3", BOXED)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def asked_once(server: Server, reply: Reply, **sampling: Any) -> Generation:
    """What is made of one reply, which must not be asked for again."""
    server.tries.clear()
    server.script = {"it": [reply]}
    with opened(server) as session:
        found = answers(session, asks("it", **sampling))["it"]
    assert server.tries["it"] == 1, "an answer that is there is not paid for again"
    return found


def outcome(found: Generation) -> str:
    assert found.error is None
    assert found.finish_reason
    parsed = HostedRenderer(HostedRendererOptions()).parse(found.token_ids, found.text, found.finish_reason, "")
    return decide(parsed, GOLD, MathBoxed(MathBoxedOptions())).outcome


STOPPED = (
    "stop", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", "STOP_SEQUENCE", "COMPLETE", "FINISH_REASON_STOP",
    "FinishReason.STOP", "stop-sequence", " stop ", "end_id", "stop_words", "stopped_eos", "REASON_STOP", "finished",
    "EosToken", "endToken", "eos_token_id", "stop_eos", "</s>", "<|im_end|>", "success",
)  # fmt: skip
CUT = (
    "length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "token_limit", "max_new_tokens",
    "FinishReason.MAX_TOKENS", "model_context_window_exceeded", "LENGTH", "stopped_limit", "REASON_MAX_LEN",
    "MaxTokens", "maxOutputTokens", "truncated", "maximum_tokens",
)  # fmt: skip


@pytest.mark.parametrize("reason", [*STOPPED, "", None, "null", "None", {"type": "stop", "matched": 151645}])
def test_a_turn_that_ended_by_itself(server: Server, reason: Any) -> None:
    assert outcome(asked_once(server, chat(BOXED, reason))) == "correct"
    assert outcome(asked_once(server, chat("no box", reason), max_tokens=99)) == "no_answer"


@pytest.mark.parametrize("reason", [*CUT, {"type": "length", "length": 5}])
def test_a_turn_that_the_budget_ended(server: Server, reason: Any) -> None:
    assert outcome(asked_once(server, chat("so it would be", reason))) == "truncated"


@pytest.mark.parametrize("reason", ["", None])
def test_a_turn_of_which_nothing_is_said_was_cut_where_it_is_as_long_as_it_may_be(server: Server, reason: Any) -> None:
    assert outcome(asked_once(server, chat("so it would", reason, n_tokens=9), max_tokens=9)) == "truncated"
    assert outcome(asked_once(server, chat("so it would", reason, n_tokens=8), max_tokens=9)) == "no_answer"


@pytest.mark.parametrize(
    "reason", ["content_filter", "SAFETY", "RECITATION", "refusal", "tool_use", "sensitive", "MALFORMED_FUNCTION_CALL"]
)
def test_what_the_server_decided_is_told_at_once(server: Server, reason: str) -> None:
    check_is_error(asked_once(server, chat("half a", reason)), f"finish reason {reason!r}")


PARTS: tuple[tuple[Any, str], ...] = (
    ([{"type": "text", "text": "So "}, {"type": "text", "text": BOXED}], f"So {BOXED}"),
    ([{"type": "output_text", "text": BOXED, "annotations": []}], BOXED),
    (["So ", BOXED], f"So {BOXED}"),
    ({"type": "text", "text": BOXED}, BOXED),
    ([{"text": BOXED}], BOXED),
    ([{"type": "thinking", "thinking": "2 + 3", "signature": "x"}, {"type": "text", "text": BOXED}],
     APART),
    ([{"type": "redacted_thinking", "data": "xyz"}, {"type": "text", "text": BOXED}], BOXED),
    ([{"type": "thinking", "thinking": [{"type": "text", "text": "2 "}, {"type": "text", "text": "+ 3"}]},
      {"type": "text", "text": BOXED}], APART),
    ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 + 3"}]}, {"type": "text", "text": BOXED}],
     APART),
    ([{"text": "2 + 3", "thought": True}, {"text": BOXED}], APART),
    ([{"type": "thought", "text": "2 + 3"}, {"text": BOXED}], APART),
    ([{"type": "Thinking", "thinking": "2 + 3"}, {"type": "text", "text": BOXED}], APART),
    ([{"type": "think", "think": "2 + 3"}, {"type": "text", "text": BOXED}], APART),
    ([{"type": "text", "text": {"value": BOXED, "annotations": []}}], BOXED),
    ([{"type": "text", "text": None}, {"type": "text", "content": BOXED}], BOXED),
)  # fmt: skip


@pytest.mark.parametrize(("content", "text"), PARTS)
def test_content_in_parts(server: Server, content: Any, text: str) -> None:
    found = asked_once(server, chat(content))
    assert (found.text, outcome(found)) == (text, "correct")


@pytest.mark.parametrize(
    "more",
    [
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "2 + 3"},
                {"type": "reasoning.encrypted", "data": "x"},
            ]
        },
        {"thinking": "2 + 3"},
        {"reasoning": {"content": "2 + 3"}},
        {"reasoning": None, "reasoning_content": [{"type": "text", "text": "2 + 3"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "2 + 3"}]},
        {"reasoning_text": "2 + 3"},
        {"thought": "2 + 3"},
    ],
)
def test_reasoning_under_any_name(server: Server, more: dict[str, Any]) -> None:
    assert asked_once(server, chat(BOXED, **more)).text == APART


@pytest.mark.parametrize("blank", ["", "\n", " \n\n", None])
def test_reasoning_that_no_answer_follows_is_open(server: Server, blank: str | None) -> None:
    draft, loop = f"is it {BOXED}?", "the same words again " * 20
    assert outcome(asked_once(server, chat(blank, reasoning=draft))) == "unclosed"
    assert outcome(asked_once(server, chat(blank, "length", reasoning=draft))) == "truncated"
    assert outcome(asked_once(server, chat(blank, "length", reasoning=loop))) == "loop"


#: Of what goes with an answer, each odd in a way of its own.
USAGES: tuple[Any, ...] = (
    {"completion_tokens": 5.5}, {"completion_tokens": "5"}, {"completion_tokens": None}, {"completion_tokens": -1},
    {"completion_tokens": 10**20}, {"completion_tokens": True}, {"completion_tokens": [5]}, {"completion_tokens": 0},
    {"prompt_tokens": {"n": 5}, "completion_tokens": float("nan")}, {}, [], [5], "5", 5, None,
)  # fmt: skip
ODD: tuple[dict[str, Any], ...] = (
    *({"usage": usage} for usage in USAGES),
    {"id": None}, {"model": ["x"]}, {"created": "now"}, {"object": 3}, {"system_fingerprint": {}}, {"error": None},
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_an_answer_with_which_something_odd_goes_is_kept(server: Server, odd: dict[str, Any]) -> None:
    body = json.loads(chat(BOXED, n_tokens=None).body) | odd
    found = asked_once(server, as_json(body))
    assert (outcome(found), found.n_tokens) == ("correct", None)


@pytest.mark.parametrize(
    "odd",
    [
        {"index": "0"}, {"index": None}, {"logprobs": "none"}, {"stop_reason": "end_turn"}, {"stop_reason": {"a": 1}},
        {"stop_reason": 2.5}, {"matched_stop": 151645}, {"native_finish_reason": 7}, {"content_filter_results": []},
    ],
)  # fmt: skip
def test_a_choice_with_which_something_odd_goes_is_kept(server: Server, odd: dict[str, Any]) -> None:
    body = json.loads(chat(BOXED).body)
    body["choices"][0] |= odd
    body["choices"][0]["message"] |= {"role": 7, "tool_calls": [], "refusal": None, "audio": None}
    assert asked_once(server, as_json(body)).text == BOXED
    assert asked_once(server, as_json(body | {"choices": body["choices"] * 2})).text == BOXED


def test_other_names_of_counts(server: Server) -> None:
    body = json.loads(chat(BOXED).body) | {"usage": {"input_tokens": 3, "output_tokens": 7}}
    found = asked_once(server, as_json(body))
    assert (found.n_prompt_tokens, found.n_tokens) == (3, 7)


@pytest.mark.parametrize("name", ["stop_reason", "matched_stop"])
@pytest.mark.parametrize(("content", "text"), [("a", "aEND"), ("aEND", "aEND")])
def test_a_stop_string_is_the_last_text_once(server: Server, name: str, content: str, text: str) -> None:
    body = json.loads(chat(content).body)
    body["choices"][0][name] = "END"
    assert asked_once(server, as_json(body), stop=("END",)).text == text


# --- in pieces ---


def piece(finish_reason: Any = None, usage: Any = None, **delta: Any) -> str:
    whole = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return json.dumps(whole | ({"usage": usage} if usage else {}))


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}})


def events(*pieces: str, end: str = "\n\n", head: str = "data: ") -> Reply:
    body = "".join(f"{head}{one}{end}" for one in pieces)
    return Reply(body.encode(), headers={"Content-Type": "text/event-stream; charset=utf-8"})


WHOLE = (
    piece(role="assistant", content=""), piece(reasoning_content="2 +"), piece(reasoning_content=" 3"),
    piece(content="\\boxed"), piece(content="{5}"), piece("stop"), USAGE, "[DONE]",
)  # fmt: skip


@pytest.mark.parametrize(
    "reply",
    [
        events(*WHOLE),
        events(*WHOLE, end="\r\n\r\n"),
        events(*WHOLE, head="data:"),
        events(*WHOLE, end="\n"),
        events(*WHOLE[:-1]),
        events(*WHOLE, head=": keep-alive\n\nid: 7\nretry: 10\ndata: "),
        Reply(events(*WHOLE).body, headers={"Content-Type": "application/json"}),
        Reply(b"\xef\xbb\xbf: hello\n\n" + events(*WHOLE).body),
        events(*WHOLE[:5], piece("stop", {"prompt_tokens": 3, "completion_tokens": 7}), "[DONE]"),
    ],
)
def test_an_answer_in_pieces_is_the_same_answer(server: Server, reply: Reply) -> None:
    found = asked_once(server, reply)
    assert (found.text, found.finish_reason, found.n_tokens, found.n_prompt_tokens) == (
        APART, "stop", 7, 3
    )  # fmt: skip


def test_pieces_in_parts_and_without_a_reason(server: Server) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 3"}]}
    reply = events(piece(content=[thought]), piece(content=[{"type": "text", "text": BOXED}]), "[DONE]")
    assert asked_once(server, reply).text == APART


BROKEN = {
    "an error": (events(*WHOLE[:5], json.dumps({"error": {"message": "upstream is gone"}})), "upstream is gone"),
    "an error with a choice": (
        events(*WHOLE[:5], json.dumps(json.loads(piece("error", content="")) | {"error": {"code": 502}}), "[DONE]"),
        "502",
    ),
    "a named error": (events(*WHOLE[:5], head="event: error\ndata: "), "broke off"),
    "a reason that is one": (events(*WHOLE[:5], piece("error"), "[DONE]"), "finish reason 'error'"),
    "no end": (events(*WHOLE[:5]), "ended before the answer did"),
    "half a piece": (events(*WHOLE[:4], WHOLE[4][:20]), "no JSON"),
    "nothing": (events("[DONE]"), "no answer"),
    "only comments": (Reply(b": hi\n\n: hi\n\n"), "ended before"),
    "no object": (events("[]", "[DONE]"), "broke off"),
    "brackets": (events("[" * 100_000), "no JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_breaks_off_is_an_error_and_no_short_answer(server: Server, name: str) -> None:
    reply, words = BROKEN[name]
    server.script = {"again": [reply, events(*WHOLE)], "never": [reply]}
    with opened(server) as session:
        found = answers(session, asks("again", "never"))
    assert found["again"].text.endswith(BOXED)
    check_is_error(found["never"], words, "after 3 tries")


def test_a_server_that_only_streams_is_asked_to(server: Server) -> None:
    def behave(sent: Any) -> Reply:
        if not sent.body.get("stream"):
            return refusal(400, "This model only supports streaming: set stream to true")
        if "stream_options" in sent.body:
            return refusal(422, "stream_options: extra field")
        return events(*WHOLE)

    server.behave = behave
    with opened(server, concurrency=1) as session:
        found = answers(session, asks("a", "b"))
    assert {one.text for one in found.values()} == {APART}
    assert [sent.body.get("stream") for sent in server.asked] == [None, True, True, True], "which it remembers"
    assert "stream" not in found["b"].effective


def test_a_refusal_that_only_sounds_like_it_is_told(server: Server) -> None:
    found = asked_once(server, refusal(400, "the upstream did not like it"))
    check_is_error(found, "HTTP 400: the upstream did not like it")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), reasoning=st.text(max_size=30), answer=st.text(min_size=1, max_size=30))
def test_any_cut_of_an_answer_into_pieces_gives_the_answer(data: Any, reasoning: str, answer: str) -> None:
    def cut(text: str) -> list[str]:
        places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]

    pieces = [piece(reasoning=part) for part in cut(reasoning)] + [piece(content=part) for part in cut(answer)]
    reply = events(*pieces, piece("stop"), "[DONE]", end=data.draw(st.sampled_from(["\n\n", "\r\n\r\n", "\n", "\r\r"])))
    assert is_stream("", reply.body)
    [choice] = json.loads(whole_answer(reply.body))["choices"]
    message = choice["message"]
    assert (message.get("reasoning_content", ""), message["content"]) == (reasoning, answer)
    with pytest.raises(BrokenStream):
        whole_answer(events(*pieces).body)


def test_what_has_come_is_given_before_what_failed_is_raised() -> None:
    """Answers that have been paid for are there when another request ends the session."""
    failed = asyncio.Event()

    async def work(number: int) -> int:
        if number == 0:
            failed.set()
            raise KeyError(number)
        await failed.wait()
        return number

    loop, given = LoopThread(), list[int]()
    with pytest.raises(KeyError):
        for one in loop.as_finished(map(work, [1, 2, 0, 3]), limit=4):
            given.append(one)
            time.sleep(0.05)
    loop.close(nothing)
    assert {1, 2} <= set(given)
    assert not engine_threads()


async def nothing() -> None:
    """Ends at once."""
