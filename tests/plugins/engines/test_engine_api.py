"""The api engine against a real HTTP server that fails in every way that real ones do, as scripts say."""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from api_helpers import (
    NO_IDS,
    answers,
    asks,
    batch,
    check_is_error,
    engine_threads,
    ids_request,
    opened,
    opened_tokens,
)
from api_server import Reply, Sent, Server, as_json, chat, completion, refusal, serve
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import Run, Tiny, trace

from distillbench.errors import RowError, StageError
from distillbench.protocols import Context
from distillbench.reasoning_formats import join_apart
from distillbench.records import Batch, Checkpoint, Generation, Message, Prompt
from distillbench_plugins.engines.api import ApiEngine, ApiOptions
from distillbench_plugins.renderers.hosted import HostedRenderer, HostedRendererOptions
from distillbench_plugins.servers.client import MOST_UNANSWERED
from distillbench_plugins.students.hosted import HostedOptions, HostedStudent

KEY = "sk-a-secret-of-the-test"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def stopped(reply: Reply, at: str) -> Reply:
    """A reply as vLLM sends it when a stop string ended it."""
    body = json.loads(reply.body)
    body["choices"][0]["stop_reason"] = at
    return as_json(body)


GOOD = chat("the right text")
#: Answers that another try may better, and words of the error where none does.
PASSING: dict[str, tuple[Reply, str]] = {
    "429": (refusal(429, "slow down"), "HTTP 429: slow down"),
    "500": (refusal(500, "oh no"), "HTTP 500: oh no"),
    "502 in HTML": (Reply(b"<html>Bad gateway</html>", 502), "HTTP 502: <html>Bad gateway"),
    "503": (refusal(503, "busy"), "HTTP 503: busy"),
    "408": (refusal(408, "late"), "HTTP 408: late"),
    "cut": (replace(GOOD, cut=True), "ClientPayloadError"),
    "dropped": (replace(GOOD, drop=True), "Disconnected"),
    "hangs": (replace(GOOD, delay=30), "no whole answer within 0.4 s"),
    "drips": (replace(GOOD, drip=0.05), "no whole answer within 0.4 s"),
    "no HTTP": (Reply(b"hello, I am no server of yours\r\n\r\n", raw=True), "ClientResponseError"),
    "broken gzip": (replace(GOOD, headers={"Content-Encoding": "gzip"}), "ClientPayloadError"),
    "brackets": (Reply(b"[" * 100_000), "the server sent no completion"),
    "garbage": (Reply(b"\x00\xff<<<"), "the server sent no completion"),
    "half of the JSON": (Reply(GOOD.body[:40]), "the server sent no completion"),
    "nothing": (Reply(b""), "the server sent no completion"),
    "a list": (as_json([1, 2]), "the server sent no completion"),
    "no choices": (as_json({"id": "x"}), "choices"),
    "empty choices": (as_json({"choices": []}), "choices"),
    "null choices": (as_json({"choices": None}), "choices"),
    "no message": (as_json({"choices": [{"finish_reason": "stop"}]}), "choices.0.message"),
    "content that is a number": (chat(5), "choices.0.message.content"),
    "error with status 200": (as_json({"error": {"message": "upstream is gone", "code": 502}}), "upstream is gone"),
    "null content": (chat(None), "without content"),
    "null content, no usage": (chat(None, n_tokens=None), "without content"),
    "null content, cut, no usage": (chat(None, "length", None), "empty message"),
    "empty content, no usage": (chat("", n_tokens=None), "empty message"),
    "empty content, no tokens": (chat("", n_tokens=0), "empty message"),
    "failed": (chat("half a", "error"), "finish reason 'error'"),
    "aborted": (chat("half a", "abort"), "finish reason 'abort'"),
    "out of resources": (chat("half a", "insufficient_system_resource"), "'insufficient_system_resource'"),
    "a pause that is no date": (
        refusal(503, "busy", **{"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999999"}),
        "HTTP 503: busy",
    ),
}
#: Answers that would come again.
FINAL: dict[str, tuple[Reply, str]] = {
    "400": (refusal(400, "max_tokens is too large: 99"), "HTTP 400: max_tokens is too large: 99"),
    "413": (refusal(413, "too long"), "HTTP 413: too long"),
    "422": (refusal(422, "seed: extra field"), "HTTP 422: seed: extra field"),
    "moved": (Reply(b"", 307, {"Location": "http://127.0.0.1:9/v1"}), "HTTP 307"),
    "filtered": (chat("half a", "content_filter"), "finish reason 'content_filter'"),
    "tools": (chat(None, "tool_calls"), "finish reason 'tool_calls'"),
    "function": (chat("x", "function_call"), "finish reason 'function_call'"),
    "unknown finish reason": (chat("half a", "Mondays"), "finish reason 'Mondays'"),
    "finish reason of a wrong type": (chat("half a", 3), "finish reason 3"),
    "unsafe": (chat("half a", "SAFETY"), "finish reason 'SAFETY'"),
    "a picture": (chat([{"type": "text", "text": "see"}, {"type": "image_url"}]), "no text (image_url)"),
    "refused": (chat(None, refusal="I will not"), "refused to answer: I will not"),
    "refused in a part": (chat([{"type": "refusal", "refusal": "I will not"}]), "refused to answer: I will not"),
    "half a character": (refusal(400, "no \ud83d"), "HTTP 400: no ?"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again_and_told_at_the_end(server: Server, name: str) -> None:
    """Once, twice, and for good; healthy requests go on meanwhile."""
    reply, words = PASSING[name]
    server.script = {"once": [reply, GOOD], "twice": [reply, reply, GOOD], "always": [reply]}
    with opened(server, timeout=0.4 if "within" in words else 10.0) as session:
        found = answers(session, asks("once", "healthy", "twice", "always", "healthy too"))
    assert found["once"].text == found["twice"].text == "the right text"
    assert found["healthy"].text == "answer to healthy"
    assert found["healthy too"].text == "answer to healthy too"
    check_is_error(found["always"], words, "after 3 tries")
    assert server.tries == {"once": 2, "twice": 3, "always": 3, "healthy": 1, "healthy too": 1}


@pytest.mark.parametrize("name", FINAL)
def test_what_would_come_again_is_told_at_once(server: Server, name: str) -> None:
    reply, words = FINAL[name]
    server.script = {"it": [reply, GOOD]}
    with opened(server) as session:
        found = answers(session, asks("healthy", "it", "healthy too"))
    check_is_error(found["it"], words)
    assert server.tries["it"] == 1
    assert found["healthy"].text == "answer to healthy"
    assert found["healthy too"].text == "answer to healthy too"


STEPS = st.lists(st.sampled_from([*PASSING, *FINAL, "good"]).filter(lambda name: name not in ("hangs", "drips")))


@settings(max_examples=25, deadline=None)
@given(scripts=st.lists(STEPS, min_size=1, max_size=12), concurrency=st.integers(1, 5))
def test_every_sample_has_its_text_or_its_error(scripts: list[list[str]], concurrency: int) -> None:
    """Against what the rules say, worked out here for each script on its own."""
    replies = {name: reply for name, (reply, _) in (PASSING | FINAL).items()} | {"good": GOOD}
    words = {name: words for name, (_, words) in (PASSING | FINAL).items()}
    with serve() as server:
        for number, steps in enumerate(scripts):
            server.script[str(number)] = [replies[step] for step in [*steps, "good"]]
        with opened(server, concurrency=concurrency) as session:
            found = answers(session, asks(*map(str, range(len(scripts)))))
    for number, steps in enumerate(scripts):
        tried = [*steps, "good"][:3]
        last = next((step for step in tried if step not in PASSING), tried[-1])
        if last == "good":
            assert (found[str(number)].text, found[str(number)].error) == ("the right text", None)
        else:
            check_is_error(found[str(number)], words[last])


@pytest.mark.parametrize(
    ("reply", "text", "finish_reason", "n_tokens"),
    [
        (chat("5"), "5", "stop", 7),
        (chat("5", n_tokens=None), "5", "stop", None),
        (chat("half", "length"), "half", "length", 7),
        (chat("5", reasoning_content="2 + 3"), join_apart("2 + 3", "5"), "stop", 7),
        (chat("5", reasoning="2 + 3"), join_apart("2 + 3", "5"), "stop", 7),
        (chat("5", reasoning="2 + 3", reasoning_content=None), join_apart("2 + 3", "5"), "stop", 7),
        (chat("5", reasoning=None, reasoning_content=""), "5", "stop", 7),
        (chat(None, "length", reasoning="2 +"), join_apart("2 +", ""), "length", 7),
        (chat("", "length", reasoning="2 +"), join_apart("2 +", ""), "length", 7),
        (chat("half", "length", reasoning="2 + 3"), join_apart("2 + 3", "half"), "length", 7),
        (chat(None, reasoning="2 + 3"), join_apart("2 + 3", ""), "stop", 7),
        (chat(None, "length"), "", "length", 7),
        (chat("", "length"), "", "length", 7),
        (chat("", n_tokens=1), "", "stop", 1),
        (chat("<think>a</think>5"), "<think>a</think>5", "stop", 7),
        (chat("cut \ud83d", "length"), "cut \ufffd", "length", 7),
        (chat("\ude00 cut", "length"), "\ufffd cut", "length", 7),
        (chat("whole \U0001f600, \\ud83d is text"), "whole \U0001f600, \\ud83d is text", "stop", 7),
        (
            chat("whole \U0001f600", "length", reasoning="\ud83d"),
            join_apart("\ufffd", "whole \U0001f600"),
            "length",
            7,
        ),
    ],
)
def test_what_is_made_of_an_answer(
    server: Server, reply: Reply, text: str, finish_reason: str, n_tokens: int | None
) -> None:
    server.script = {"it": [reply]}
    with opened(server, retries=0) as session:
        found = answers(session, asks("it"))["it"]
    assert (found.text, found.finish_reason, found.n_tokens, found.error) == (text, finish_reason, n_tokens, None)
    assert found.n_prompt_tokens == (None if n_tokens is None else 3)


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer", "state"),
    [
        (chat("5", reasoning="2 + 3"), "2 + 3", "5", "closed"),
        (chat("5"), None, "5", "absent"),
        (chat(None, "length", reasoning="is it \\boxed{4}?"), "is it \\boxed{4}?", "", "open"),
        (chat(None, reasoning="2 + 3"), "2 + 3", "", "open"),
        (stopped(chat(None, reasoning="2 + 3"), "END"), "2 + 3END", "", "open"),
        (chat("", "length"), None, "", "absent"),
    ],
)
def test_the_hosted_renderer_splits_it(
    server: Server, reply: Reply, reasoning: str | None, answer: str, state: str
) -> None:
    server.script = {"it": [reply]}
    with opened(server) as session:
        found = answers(session, asks("it", stop=("END",)))["it"]
    assert found.finish_reason
    split = HostedRenderer(HostedRendererOptions()).parse(found.token_ids, found.text, found.finish_reason, "")
    assert (split.reasoning, split.answer, split.reasoning_state) == (reasoning, answer, state)


def test_what_is_sent_to_a_hosted_model(server: Server) -> None:
    """Nothing of the evaluation is left out, nothing is added, and `effective` is what went over the wire."""
    talk = (Message("system", "be brief"), Message("user", "it"))
    plain = replace(asks("it", max_tokens=9)[0], messages=talk)
    drawn = asks("all", temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, stop=("END",), max_tokens=8)
    with opened(server) as session:
        found = answers(session, [plain, *drawn])
    bodies = {sent.asked: sent.body for sent in server.asked}
    greedy = {"max_tokens": 9, "temperature": 0.0, "top_p": 1.0, "seed": 7}
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "it"}]
    assert bodies["it"] == {"model": "m", "messages": messages, **greedy}
    warped = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "stop": ["END"], "max_tokens": 8, "seed": 7}
    assert bodies["all"] == {"model": "m", "messages": [{"role": "user", "content": "all"}], **warped}
    assert (found["it"].effective, found["all"].effective) == (greedy, warped)
    assert {sent.path for sent in server.asked} == {"/v1/chat/completions"}


def test_options_change_what_is_sent(server: Server) -> None:
    options = {
        "model": "another",
        "extra_body": {"reasoning_effort": "high"},
        "omit": ("temperature", "top_p"),
        "max_tokens_field": "max_completion_tokens",
    }
    with opened(server, **options) as session:
        found = answers(session, asks("it", max_tokens=9))["it"]
        assert session.facts["model"] == "another"
    sent = {"max_completion_tokens": 9, "seed": 7, "reasoning_effort": "high"}
    assert found.effective == sent
    assert server.asked[0].body == {"model": "another", "messages": [{"role": "user", "content": "it"}], **sent}


def test_an_error_tells_what_was_sent_too(server: Server) -> None:
    server.script = {"it": [refusal(400, "no")]}
    with opened(server) as session:
        assert answers(session, asks("it", max_tokens=9))["it"].effective["max_tokens"] == 9


def test_vllm_is_told_what_it_would_take_from_the_models_own_configuration(server: Server) -> None:
    server.pages = {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm"}]}, "/version": {"version": "0.99"}}
    server.script = {"it": [as_json({"choices": [{"message": {"content": "a"}, "finish_reason": "stop",
                                                  "stop_reason": "END"}]})]}  # fmt: skip
    with opened(server) as session:
        found = answers(session, asks("it", max_tokens=9, stop=("END",)))["it"]
        assert session.facts["server"] == "vllm 0.99"
    neutral = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    warping = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    rest = {"max_tokens": 9, "seed": 7, "stop": ["END"], "skip_special_tokens": False}
    assert found.effective == {**neutral, **warping, **rest}
    assert found.text == "aEND", "a stop string is the last text"


@pytest.mark.parametrize("owner", ["sglang", "llamacpp"])
def test_other_servers_that_fill_in_what_is_left_out_are_told_too(server: Server, owner: str) -> None:
    server.pages = {"/v1/models": {"data": [{"id": "m", "owned_by": owner}]}}
    with opened(server) as session:
        effective = answers(session, asks("it"))["it"].effective
        assert session.facts["server"] == owner
    assert (effective["top_k"], effective["min_p"], effective["repetition_penalty"]) == (-1, 0.0, 1.0)


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "openai", None])
@pytest.mark.parametrize(
    "penalties",
    [{"presence_penalty": 1.5}, {"repetition_penalty": 1.1}, {"presence_penalty": 1, "repetition_penalty": 2}],
)
def test_penalties_are_sent_or_refused_and_never_dropped(
    server: Server, owner: str | None, penalties: dict[str, float]
) -> None:
    card = {"id": "m"} | ({"owned_by": owner} if owner else {})
    server.pages = {"/v1/models": {"data": [card]}, "/version": {"version": "0.99"}}
    with opened(server) as session:
        if "repetition_penalty" in penalties and owner not in ("vllm", "sglang"):
            with pytest.raises(StageError, match=r"repetition_penalty .* may ignore it without a word"):
                answers(session, asks("it", **penalties))
            assert not server.asked
        else:
            found = answers(session, asks("it", **penalties))["it"]
            assert {name: found.effective[name] for name in penalties} == penalties
            assert {name: server.asked[0].body[name] for name in penalties} == penalties


def test_retry_after_is_waited_for(server: Server) -> None:
    """In seconds, and as a date (whose seconds are whole, so that it may be up to one second early)."""
    date = formatdate(time.time() + 2, usegmt=True)
    server.script = {"seconds": [refusal(429, Retry_After="0.5"), GOOD], "date": [refusal(503, Retry_After=date), GOOD],
                     "unreadable": [refusal(429, Retry_After="soon"), GOOD]}  # fmt: skip
    with opened(server) as session:
        found = answers(session, asks("seconds", "date", "unreadable"))
    assert {one.text for one in found.values()} == {"the right text"}
    times = {name: [sent.at for sent in server.asked if sent.asked == name] for name in server.script}
    assert times["seconds"][1] - times["seconds"][0] >= 0.5
    assert times["date"][1] - times["date"][0] >= 0.9


def test_no_more_is_under_way_or_read_ahead_than_the_options_say(server: Server) -> None:
    server.behave = lambda sent: chat(sent.asked, delay=0.03)
    pulled: list[str] = []
    given: list[str] = []

    def batches() -> Iterator[Batch]:
        for number in range(20):
            requests = asks(*(f"{number}-{place}" for place in range(3)))
            pulled.append(str(number))
            yield Batch(f"stage-{number}", None, requests)

    with opened(server, concurrency=4) as session:
        for key, one in session.generate(batches()):
            given.append(one.sample_id)
            assert key == f"stage-{one.sample_id.split('-')[0]}"
            assert one.text == one.sample_id
            assert len(pulled) <= (len(given) + 4) / 3 + 1, "batches are read as far ahead as there is room"
            assert len(server.asked) <= len(given) + 4
    assert sorted(given) == sorted(f"{number}-{place}" for number in range(20) for place in range(3))
    assert server.most_at_once == 4


def test_results_come_while_a_slow_one_is_still_awaited(server: Server) -> None:
    server.script = {"slow": [chat("slow", delay=1.0)]}
    with opened(server) as session:
        order = [one.sample_id for _, one in session.generate([batch(asks("slow", *map(str, range(20))))])]
    assert order[-1] == "slow"


def test_skip_and_no_work(server: Server) -> None:
    with opened(server) as session:
        requests = asks("a", "b", "c")
        found = [one.sample_id for _, one in session.generate([batch(requests, skip=frozenset({"a", "c"}))])]
        assert found == ["b"]
        assert list(session.generate([])) == []
        assert list(session.generate([batch(requests, skip=frozenset("abc"))])) == []
    assert len(server.asked) == 1


def wait_until(true: Any) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came true")


def test_a_generator_that_is_closed_early_leaves_nothing_behind(server: Server) -> None:
    server.behave = lambda sent: chat("x", delay=0.0 if sent.asked == "0" else 1.5)
    with opened(server) as session:
        generator = session.generate([batch(asks(*map(str, range(40))))])
        assert next(generator)[1].sample_id == "0"
        begun = time.monotonic()
        generator.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 1.0, "it does not wait for what it has cancelled"
        server.behave = lambda sent: chat("again")
        assert answers(session, asks("more"))["more"].text == "again", "the session goes on"
        assert {sent.asked for sent in server.asked} <= {"0", "1", "2", "3", "4", "more"}, (
            "one finished, four under way"
        )
    assert engine_threads() == []
    wait_until(lambda: server.hung_up + sum(sent.asked == "0" for sent in server.asked) >= 1)


def test_an_error_of_the_consumer_or_of_the_batches_ends_everything(server: Server) -> None:
    server.behave = lambda sent: chat("x", delay=0.0 if sent.asked == "0" else 60.0)

    def broken() -> Iterator[Batch]:
        yield batch(asks("1"))
        raise KeyError("the batches")

    with pytest.raises(KeyError, match="the batches"), opened(server) as session:
        list(session.generate(broken()))
    with pytest.raises(ZeroDivisionError), opened(server) as session:
        for _ in session.generate([batch(asks(*map(str, range(40))))]):
            raise ZeroDivisionError
    assert engine_threads() == []


ABANDONED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from api_helpers import asks, batch, opened
from api_server import Server
session = opened(Server(base_url={url!r}), timeout=600)
generator = session.__enter__().generate([batch(asks(*map(str, range(40))))])
print(next(generator)[1].text, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise RuntimeError", "import os; os.kill(os.getpid(), 2)"])
def test_a_program_that_ends_is_not_held_up(server: Server, end: str) -> None:
    server.behave = lambda sent: chat("x", delay=0.0 if sent.asked == "0" else 600.0)
    # A program that was started in the background, as a test run may be, has Ctrl-C switched off.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code += ABANDONED.format(tests=str(Path(__file__).parents[1]), url=server.base_url, end=end)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.stdout == b"x\n", done.stderr
    assert done.returncode == {"": 0, "sys.exit(3)": 3, "raise RuntimeError": 1}.get(end, -signal.SIGINT)


def test_nobody_there() -> None:
    with serve() as gone:
        pass
    words = r"(?s)does not answer.*Connect.*3 tries.*hint: see whether it runs"
    with pytest.raises(StageError, match=words), opened(gone):
        raise AssertionError("it must not open")
    assert engine_threads() == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_stops_before_anything_is_asked(server: Server, status: int) -> None:
    server.pages = {"/v1/models": refusal(status, "bad key")}
    words = rf"(?s)refuses every request: HTTP {status}: bad key.*api_key_env"
    with pytest.raises(StageError, match=words), opened(server):
        raise AssertionError("it must not open")
    assert len(server.sent) == 1


def test_more_connections_than_files_may_be_open_are_refused(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1000), hard))
    try:
        with (
            pytest.raises(StageError, match=r"`concurrency: 5000` .*(?s:.*)ulimit -n 5128"),
            opened(server, concurrency=5000),
        ):
            raise AssertionError
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.sent == []


def test_a_server_without_a_list_of_models_is_fine(server: Server) -> None:
    server.pages = {}
    with opened(server) as session:
        assert answers(session, asks("it"))["it"].text == "answer to it"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refusal_of_everything_stops_the_session(server: Server, status: int) -> None:
    server.behave = lambda sent: refusal(status, "not you")
    with pytest.raises(StageError, match=f"HTTP {status}: not you"), opened(server) as session:
        list(session.generate([batch(asks(*map(str, range(200))))]))
    assert len(server.asked) <= 2 * 4, "not one more than was under way"


def test_a_403_among_answers_is_of_that_request_alone(server: Server) -> None:
    server.script = {"bad": [refusal(403, "flagged by moderation")]}
    with opened(server, concurrency=1) as session:
        found = answers(session, asks("a", "bad", "b"))
    check_is_error(found["bad"], "HTTP 403: flagged by moderation")
    assert found["a"].text == "answer to a"
    assert found["b"].text == "answer to b"


@pytest.mark.parametrize("reply", [refusal(503, "down"), Reply(drop=True)])
def test_a_server_that_goes_down_stops_the_session_and_what_came_is_kept(server: Server, reply: Reply) -> None:
    server.behave = lambda sent: chat("x") if len(server.asked) <= 30 else reply
    found: list[Generation] = []
    words = f"answered none of {MOST_UNANSWERED} requests in a row; the last: "
    with pytest.raises(StageError, match=words), opened(server, retries=1) as session:
        found.extend(one for _, one in session.generate([batch(asks(*map(str, range(10_000))))]))
    assert 27 <= sum(one.text == "x" for one in found) <= 30
    assert len(server.asked) <= 30 + 2 * 2 * MOST_UNANSWERED, "a few more than the limit, because many are under way"


def test_answers_in_between_keep_the_session_going(server: Server) -> None:
    bad = [f"bad-{number}" for number in range(2 * MOST_UNANSWERED)]
    server.script = {name: [refusal(500, "oh no")] for name in bad}
    names = [name for number, one in enumerate(bad) for name in (one, f"good-{number}")]
    with opened(server, retries=0) as session:
        found = answers(session, asks(*names))
    assert sum(one.error is not None for one in found.values()) == len(bad)


def test_the_key_is_sent_and_shown_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Servers repeat it in their errors, in whatever form those come."""
    monkeypatch.setenv("A_KEY", f" {KEY}\n")
    told = f"wrong key {KEY}, Bearer {KEY}"
    server.script = {
        "400": [refusal(400, told)],
        "500": [refusal(500, told)],
        "html": [Reply(told.encode(), 502)],
        "garbage": [Reply(told.encode())],
        "error": [as_json({"error": {"message": told}})],
        "refused": [chat(None, refusal=told)],
        "reason": [chat("x", told)],
        "long": [Reply(b"x" * 290 + told.encode(), 500)],
        "long garbage": [Reply(b"x" * 200 + told.encode())],
        "long error": [as_json({"error": {"message": "x" * 160 + told}})],
    }
    with caplog.at_level(logging.DEBUG), opened(server, api_key_env="A_KEY") as session:
        found = answers(session, asks("good", *server.script))
        shown = json.dumps([session.facts, [[one.error, dict(one.effective)] for one in found.values()]]) + repr(
            session
        )
        server.behave = lambda sent: refusal(401, told)
        with pytest.raises(StageError, match="refuses every request") as stopped:
            list(session.generate([batch(asks("last"))]))
    assert all(sent.headers["authorization"] == f"Bearer {KEY}" for sent in server.sent)
    assert all(found[name].error for name in server.script)
    for text in (shown, str(stopped.value), caplog.text):
        assert KEY not in text
        assert "sk-a" not in text
    assert "[API key]" in str(found["400"].error)


def test_a_key_that_is_missing_or_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(StageError, match="A_KEY does not hold an API key"), opened(server, api_key_env="A_KEY"):
        raise AssertionError
    for broken in ("two\nlines", "schlüssel"):
        monkeypatch.setenv("A_KEY", broken)
        with pytest.raises(StageError, match="cannot be an API key") as found, opened(server, api_key_env="A_KEY"):
            raise AssertionError
        assert broken not in str(found.value)
    assert server.sent == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "127.0.0.1:8000"}, "https://HOST/v1"),
        ({"base_url": f"https://me:{KEY}@host/v1"}, "no user, password, query or fragment"),
        ({"base_url": f"https://host/v1?key={KEY}"}, "no user, password, query or fragment"),
        ({"extra_body": {"temperature": 1, "user": "x"}}, "extra_body temperature: the engine sets that itself"),
        ({"extra_body": {"presence_penalty": 1}}, "extra_body presence_penalty: the engine sets that itself"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as found:
        ApiOptions(**options)
    assert KEY not in str(found.value)


# --- students and renderers without a tokenizer ---


def test_a_hosted_student_says_what_it_cannot(tmp_path: Path) -> None:
    student = HostedStudent(HostedOptions("big-model"))
    assert student.renderer() == "hosted"
    assert not student.has_tokenizer
    assert student.preview_tokenizer() is None
    assert student.served_name(None) == "big-model"
    for refused, words in (
        (lambda: student.load_model(None, "cpu"), "can neither be trained nor loaded"),
        (lambda: student.load_tokenizer(None), "renderer: hosted"),
        (lambda: student.source(None), "engine: api"),
    ):
        with pytest.raises(StageError, match=words) as found:
            refused()
        assert "big-model" in str(found.value)
    engine = ApiEngine(ApiOptions(mode="tokens"))
    with (
        pytest.raises(StageError, match="needs a student with a tokenizer"),
        engine.open(student, None, (), Context(work=tmp_path)),
    ):
        raise AssertionError


def test_a_hosted_renderer_says_what_it_cannot() -> None:
    renderer = HostedRenderer(HostedRendererOptions())
    asked = (Message("user", "How many?"),)
    for prefill in ("auto", "none"):
        prompt = renderer.prompt(asked, prefill)  # type: ignore[arg-type]
        assert (prompt.input_ids.tolist(), prompt.prefill) == ([], "")
    assert renderer.stop_token_ids() == ()
    assert renderer.show(prompt) == ""
    with pytest.raises(StageError, match="prefill: think"):
        renderer.prompt(asked, "think")
    with pytest.raises(StageError, match="gen_prefix"):
        renderer.prompt((*asked, Message("assistant", "The answer is")))
    with pytest.raises(RowError, match="made row 0: renderer 'hosted' makes no training rows"):
        renderer.render(trace("a", "b"))
    with pytest.raises(StageError, match="has no tokenizer"):
        _ = renderer.tokenizer


def test_chat_leaves_the_assistants_turn_to_the_server(server: Server) -> None:
    [one] = asks("it")
    begun = replace(one, prompt=Prompt(NO_IDS, "<think>\n"))
    for request, words in ((begun, "would have to stand in it"), (replace(one, messages=()), "it has none")):
        with pytest.raises(StageError, match=words), opened(server) as session:
            list(session.generate([batch([request])]))
    assert server.asked == []


def test_tokens_are_not_asked_of_a_chat_api(server: Server) -> None:
    with opened(server) as session:
        [one] = asks("it")
        with pytest.raises(StageError, match="hold no tokens"):
            session.first_token_logprobs([one.prompt], None)
        with pytest.raises(StageError, match="a chat API takes none"):
            list(session.loglikelihood(batch([replace(one, continuations=((1, 2),))])))


# --- token ids in, token ids out ---


@pytest.fixture
def speaking(server: Server, tiny: Tiny) -> Server:
    """A server that continues tokens, whatever they are, with the same three."""
    server.behave = lambda sent: completion(sent.body["prompt"], speech(tiny))
    return server


def speech(tiny: Tiny) -> list[int]:
    return [*tiny.tokenizer.encode("ab", add_special_tokens=False), tiny.renderer.stop_token_ids()[0]]


def test_what_is_sent_to_a_server_of_tokens(speaking: Server, tiny: Tiny) -> None:
    request = ids_request(tiny, 5, 6, 7, max_tokens=9, temperature=0.7, top_k=3, stop=("END",))
    with opened_tokens(speaking, tiny) as session:
        found = answers(session, [request])["5 6 7"]
        assert session.facts == {
            "engine": "api", "base_url": speaking.base_url, "model": str(tiny.built), "mode": "tokens"
        }  # fmt: skip
    stop = list(tiny.renderer.stop_token_ids())
    sent = {
        "max_tokens": 9, "temperature": 0.7, "top_p": 1.0, "top_k": 3, "min_p": 0.0, "seed": 7, "stop": ["END"],
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "stop_token_ids": stop,
        "ignore_eos": True, "skip_special_tokens": False, "return_token_ids": True,
    }  # fmt: skip
    assert speaking.asked[-1].body == {"model": str(tiny.built), "prompt": [5, 6, 7], **sent}
    assert speaking.asked[-1].path == "/v1/completions"
    assert found == Generation(
        "5 6 7", tuple(speech(tiny)), "ab", "stop", n_tokens=len(speech(tiny)), n_prompt_tokens=3, effective=sent
    )


def test_how_a_completion_of_tokens_ends(speaking: Server, tiny: Tiny) -> None:
    end = tiny.renderer.stop_token_ids()[0]
    a, b = tiny.tokenizer.encode("a", add_special_tokens=False), tiny.tokenizer.encode("b", add_special_tokens=False)
    speaking.script = {
        "1 1": [completion([1, 1], [*a, *b, end], stop_reason=end)],
        "1 2": [completion([1, 2], [*a, *b], "length")],
        "1 3": [completion([1, 3], [*a, *b], text="x ", stop_reason="END")],
        "1 4": [completion([1, 4], [*a, *b])],
        "1 5": [completion([1, 5], [])],
        "1 6": [completion([1, 6], a, "abort")],
        "1 7": [completion([1, 7], ["5"])],  # type: ignore[list-item]
        "1 8": [as_json({"choices": []})],
    }
    with opened_tokens(speaking, tiny) as session:
        found = answers(session, [ids_request(tiny, 1, n, stop=("END",)) for n in range(1, 9)])
    assert (found["1 1"].text, found["1 1"].finish_reason) == ("ab", "stop")
    assert (found["1 2"].text, found["1 2"].finish_reason) == ("ab", "length")
    assert (found["1 3"].text, found["1 3"].finish_reason) == ("x END", "stop"), "a stop string is the last text"
    assert found["1 3"].token_ids == (*a, *b)
    check_is_error(found["1 4"], f"ended the turn at token {b[0]}")
    check_is_error(found["1 5"], "without any token", "after 2 tries")
    check_is_error(found["1 6"], "finish reason 'abort'")
    check_is_error(found["1 7"], "token_ids")
    check_is_error(found["1 8"], "choices")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_ids": None}, "no token ids"),
        ({"prompt_token_ids": [0, 1]}, "it puts something of its own before the prompt"),
        ({"prompt_token_ids": [9]}, "it puts something of its own before the prompt"),
    ],
)
def test_a_server_that_has_its_own_tokens_is_refused(
    server: Server, tiny: Tiny, change: dict[str, Any], words: str
) -> None:
    server.behave = lambda sent: completion(sent.body["prompt"], [5], **change)
    with pytest.raises(StageError, match=words), opened_tokens(server, tiny):
        raise AssertionError("it must not open")


def test_a_server_that_changes_its_mind_is_refused_too(speaking: Server, tiny: Tiny) -> None:
    speaking.script = {"5 6": [completion([0, 5, 6], [5], "length")], "5 7": [completion([], [5], token_ids=None)]}
    for last, words in ((6, "continued 3 tokens where it was given 2"), (7, "no token ids")):
        with pytest.raises(StageError, match=words), opened_tokens(speaking, tiny) as session:
            list(session.generate([batch([ids_request(tiny, 5, last)])]))


def test_an_unknown_model_stops_when_the_session_opens(server: Server, tiny: Tiny) -> None:
    server.behave = lambda sent: refusal(404, "The model `x` does not exist.")
    with pytest.raises(StageError, match=r"(?s)The model `x` does not exist.*`model`"), opened_tokens(server, tiny):
        raise AssertionError


def test_adapters_are_loaded_under_the_name_of_their_content(
    speaking: Server, tiny: Tiny, lora: Run, tmp_path: Path
) -> None:
    import shutil

    replies = {"/v1/load_lora_adapter": Reply(b"Success: LoRA adapter added successfully.")}

    def behave(sent: Sent) -> Reply:
        return replies.get(sent.path) or completion(sent.body["prompt"], speech(tiny))

    speaking.behave = behave
    first, last = lora.checkpoints[0], lora.checkpoints[-1]
    copied = replace(first, path=tmp_path / "copied")
    shutil.copytree(first.path, copied.path)
    with opened_tokens(speaking, tiny) as session:
        one, other = session.prepare(first), session.prepare(last)
        replies["/v1/load_lora_adapter"] = refusal(400, "The lora adapter 'x' has already been loaded. If you want")
        again = session.prepare(copied)
        request = ids_request(tiny, 5, 6)
        asked = [batch([request], checkpoint=which) for which in (first, last, copied, None)]
        assert len(list(session.generate(asked))) == 4
    assert one["served_as"] == again["served_as"] != other["served_as"]
    assert one["rank"] > 0
    assert one["modules"] > 0
    loads = [sent.body for sent in speaking.sent if sent.path == "/v1/load_lora_adapter"]
    assert [load["lora_path"] for load in loads] == [str(which.path) for which in (first, last, copied)]
    models = [sent.body["model"] for sent in speaking.asked[1:]]
    assert sorted(models) == sorted([one["served_as"]] * 2 + [other["served_as"], str(tiny.built)])


def test_requests_with_and_without_an_adapter_are_never_under_way_together(
    speaking: Server, tiny: Tiny, lora: Run
) -> None:
    """Without a GPU, vLLM 0.32 may apply an adapter to requests without one. Mixed adapters are right there."""
    under_way: list[str] = []
    seen: set[frozenset[str]] = set()

    def behave(sent: Sent) -> Reply:
        if "lora" in sent.path:
            return Reply(b"Success")
        under_way.append(sent.body["model"])
        seen.add(frozenset(under_way))
        time.sleep(0.02)
        under_way.remove(sent.body["model"])
        return completion(sent.body["prompt"], speech(tiny))

    speaking.behave = behave
    which = [None, lora.checkpoints[0], lora.checkpoints[-1]]
    with opened_tokens(speaking, tiny, concurrency=6) as session:
        names = [session.prepare(one)["served_as"] for one in which if one]
        asked = [
            Batch(f"{number}", which[number % 3], [ids_request(tiny, 5, number, n) for n in range(2)])
            for number in range(12)
        ]
        assert len(list(session.generate(asked))) == 24
    assert speaking.most_at_once > 2
    assert any(len(one) == 2 for one in seen), "adapters are mixed"
    assert all(str(tiny.built) not in one or one == {str(tiny.built)} for one in seen)
    assert set().union(*seen) == {str(tiny.built), *names}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refusal(404, "Not Found"), "HTTP 404: Not Found"),
        (refusal(500, "LoRA rank 64 is greater than max_lora_rank 16"), "LoRA rank 64 is greater"),
    ],
)
def test_a_server_that_loads_no_adapters(speaking: Server, tiny: Tiny, lora: Run, reply: Reply, words: str) -> None:
    speaking.behave = lambda sent: (
        reply if "lora" in sent.path else completion(sent.body["prompt"], speech(tiny))
    )  # fmt: skip
    with opened_tokens(speaking, tiny) as session:
        with pytest.raises(StageError, match="does not load the adapter") as found:
            session.prepare(lora.checkpoints[0])
        assert words in str(found.value)
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora" in str(found.value)
        assert answers(session, [ids_request(tiny, 5, 6)])["5 6"].text == "ab", "the others are sampled"
    assert sum("lora" in sent.path for sent in speaking.sent) == 1, "it would fail again"


def test_checkpoints_that_a_server_cannot_apply(speaking: Server, tiny: Tiny, full: Run, lora: Run) -> None:
    with opened_tokens(speaking, tiny) as session:
        with pytest.raises(StageError, match=r"(?s)holds a whole model.*vllm serve"):
            session.prepare(full.checkpoints[0])
        with pytest.raises(StageError, match=r"adapter_config\.json"):
            session.prepare(Checkpoint(tiny.built, "adapter", 1, 1))
    with opened(speaking) as session, pytest.raises(StageError, match="reached through an API and has no files"):
        session.prepare(lora.checkpoints[0])


def test_first_tokens(speaking: Server, tiny: Tiny) -> None:
    top = {"token_id:5": -0.1, "token_id:77": -2.5}
    told = {"text_offset": [0], "token_logprobs": [-0.1], "tokens": ["token_id:5"], "top_logprobs": [top]}
    speaking.script = {
        "1 2": [refusal(500), completion([1, 2], [5], "length", logprobs=told)],
        "1 3": [completion([1, 3], [5], "length", logprobs={**told, "top_logprobs": [{"a": -0.1}]})],
        "1 4": [completion([1, 4], [5], "length")],
        "1 5": [refusal(400, "logprobs: at most 5")],
    }
    prompts = [ids_request(tiny, 1, n).prompt for n in range(2, 6)]
    with opened_tokens(speaking, tiny) as session:
        assert session.first_token_logprobs(prompts[:1], None) == [{5: -0.1, 77: -2.5}]
        for prompt, words in zip(prompts[1:], ["by token id", "by token id", "at most 5"], strict=True):
            with pytest.raises(StageError, match=words):
                session.first_token_logprobs([prompt], None)


def test_loglikelihoods(speaking: Server, tiny: Tiny) -> None:
    def row(**values: float) -> dict[str, Any]:
        return {name[1:]: {"logprob": value, "rank": 1, "decoded_token": "x"} for name, value in values.items()}

    def told(*rows: Any) -> dict[str, Any]:
        return {"prompt_logprobs": [None, *rows]}

    speaking.script = {
        "1 2 3": [completion([1, 2, 3], [5], "length", **told(row(_2=-9.0), row(_3=-0.5)))],
        "1 2 4 5": [
            completion([1, 2, 4, 5], [5], "length", **told(row(_2=-9.0), row(_4=-1.5, _3=-0.5), row(_5=-0.25)))
        ],
        "1 3 4": [completion([1, 3, 4], [5], "length", **told(row(_3=-1.0), row(_9=-1.0)))],
        "1 4 5": [completion([1, 4, 5], [5], "length")],
        "1 5 5": [refusal(400, "too long")],
    }
    base = ids_request(tiny, 1, 2)
    with opened_tokens(speaking, tiny) as session:
        both = replace(base, continuations=((3,), (4, 5)))
        [found] = session.loglikelihood(batch([both, replace(both, sample_id="skipped")], skip=frozenset({"skipped"})))
        assert (json.loads(found.text), found.error) == ([[-0.5, True], [-1.75, False]], None)
        assert found.n_prompt_tokens == 2
        speaking.script["1 6 7 8 9"] = [completion([1, 6, 7, 8, 9], [5], "length", **told(row(_9=-1.0)))]
        asked = replace(ids_request(tiny, 1, 6), continuations=((7, 8, 9),))
        [error] = session.loglikelihood(batch([asked]))
        check_is_error(error, "2 `prompt_logprobs` for a prompt that ends with 3")
        speaking.script["1 7 7"] = [completion([1, 7, 7], [5], "length", **told(row(_7=math.nan), row(_7=math.nan)))]
        [error] = session.loglikelihood(batch([replace(ids_request(tiny, 1, 7), continuations=((7,),))]))
        check_is_error(error, "not a number")
        for last, continuation, words in ((3, 4, "left tokens"), (5, 5, "too long")):
            asked = replace(ids_request(tiny, 1, last), continuations=((continuation,),))
            [error] = session.loglikelihood(batch([asked]))
            check_is_error(error, words)
        with pytest.raises(StageError, match="does not tell the log-probabilities of a prompt"):
            list(session.loglikelihood(batch([replace(ids_request(tiny, 1, 4), continuations=((5,),))])))
