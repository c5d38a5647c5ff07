"""API keys: how they are read, and that nothing a hostile server sends carries one into any text that is kept."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_helpers import answers, asks, batch, ids_request, opened, opened_tokens
from api_server import Reply, Sent, Server, as_json, chat, completion, refusal, serve
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Tiny, problem

from distillbench.errors import GraderError, StageError, masked
from distillbench.protocols import Context
from distillbench_plugins.benchmarks.judge import Judge, JudgeOptions
from distillbench_plugins.engines.api import ApiOptions
from distillbench_plugins.servers.options import check_base_url, check_fields, check_variable
from distillbench_plugins.servers.secrets import HIDDEN, Secrets, read_key

KEY = "sk-Qz7-x9/Vw2+kJ4=mT8bN6"
SIGNS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
KEYS = st.text(st.sampled_from(SIGNS), min_size=12, max_size=80).map(lambda text: f"k{text}")
#: What a server may make of a secret that it repeats.
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in capitals": str.upper,
    "a header": lambda key: f"{{'Authorization': 'Bearer {key}'}}",
    "percent": lambda key: "".join(f"%{ord(char):02X}" for char in key),
    "percent twice": lambda key: "".join(f"%25{ord(char):02x}" for char in key),
    "quoted": lambda key: urllib.parse.quote(key, safe=""),
    "json": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "json in json": lambda key: json.dumps("".join(f"\\u{ord(char):04X}" for char in key)),
    "html": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "html, hexadecimal": lambda key: html.escape("".join(f"&#x{ord(char):x};" for char in key)).replace("&amp;", "&"),
    "python": lambda key: repr("".join(f"\\x{ord(char):02x}" for char in key)),
    "hexadecimal": lambda key: key.encode().hex(),
    "over lines": "\n".join,
    "in pieces": lambda key: json.dumps([key[place : place + 3] for place in range(0, len(key), 3)]),
    "wide": "\0".join,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64, after one": lambda key: base64.b64encode(f"x{key}".encode()).decode(),
    "base64 of a header": lambda key: base64.urlsafe_b64encode(f"Bearer {key}, ok".encode()).decode(),
    "base64 over lines": lambda key: base64.encodebytes(f"user:{key}:{key}".encode()).decode(),
}


def seen(key: str, text: str) -> bool:
    """Whether eight characters of a key in a row can be made out: in the text, and with what hides them undone."""
    forms = [text, urllib.parse.unquote(urllib.parse.unquote(text)), html.unescape(text)]
    forms.append(re.sub(r"\\+u00(..)", lambda one: chr(int(one[1], 16)), text))
    flat = ["".join(char for char in form if char.isprintable() and char not in " \\\"',`").lower() for form in forms]
    plain = "".join(char for char in key if char not in "\\\"',` ").lower()
    return any(plain[place : place + 8] in one for place in range(len(plain) - 7) for one in flat)


@given(key=KEYS, form=st.sampled_from(sorted(FORMS)), before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_key_is_hidden_in_every_form(key: str, form: str, before: str, after: str) -> None:
    hidden = Secrets([key]).hide(f"{before} {FORMS[form](key)} {after}")
    assert HIDDEN in hidden
    assert not Secrets([key]).are_in(hidden.replace(HIDDEN, " # "))
    assert not seen(key, hidden)


@given(key=KEYS, form=st.sampled_from(["as it is", "percent", "json", "html"]), data=st.data())
def test_what_a_cut_leaves_of_a_key_is_hidden_too(key: str, form: str, data: Any) -> None:
    whole = FORMS[form](key)
    begin = data.draw(st.sampled_from([0, len(whole) // 3]))
    part = whole[begin : data.draw(st.integers(begin, len(whole)))] if begin == 0 else whole[begin:]
    assert not seen(key, Secrets([key]).hide(f"see {part}"))


@given(st.text(), KEYS)
def test_other_texts_stay_as_they_are(text: str, key: str) -> None:
    secrets = Secrets([key])
    if not secrets.are_in(text):
        assert secrets.hide(text) == text
        assert secrets.hide_bytes(text.encode(errors="replace")) == text.encode(errors="replace")


@pytest.mark.parametrize("word", ["EMPTY", "none", "x", "12345678", ""])
def test_words_that_stand_for_no_key_are_left_in_answers(word: str) -> None:
    assert Secrets([word, None]).hide(f"the set is {word}.") == f"the set is {word}."


@given(KEYS, st.recursive(st.text(max_size=5) | st.integers() | st.none(), lambda one: st.lists(one, max_size=3)))
def test_json_stays_json(key: str, rest: Any) -> None:
    value = {"a": f"see {key}", key: rest, "b": [1.5, True, None, f"\\u{ord('a'):04x}"]}
    hidden = json.loads(Secrets([key]).hide_bytes(json.dumps(value).encode()))
    assert hidden["a"] == f"see {HIDDEN}"
    assert hidden[HIDDEN] == rest or Secrets([key]).are_in(json.dumps(rest))
    assert hidden["b"] == value["b"]


# --- keys as they are read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}\r", "{}\r\n", " {}", "\t{}\n\n", "{}"])
def test_white_space_around_a_key_is_taken_off(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    monkeypatch.setenv("A_KEY", around.format(KEY))
    assert read_key("A_KEY") == KEY


@pytest.mark.parametrize("broken", ["{}\rx", "x\n{}", "{}\x1b[0m", "{}\x7f", "{}\u200b", "clé-{}", "Bearer {}"])
def test_what_cannot_be_a_key_is_refused_unseen(
    server: Server, monkeypatch: pytest.MonkeyPatch, broken: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_KEY", broken.format(KEY))
    with (
        pytest.raises(StageError, match="A_KEY holds cannot be an API key") as engine,
        opened(server, api_key_env="A_KEY"),
    ):
        raise AssertionError
    judge = Judge(JudgeOptions(model="m", rubric=RUBRIC, base_url=server.base_url, api_key_variable="A_KEY"))
    with pytest.raises(GraderError, match="A_KEY holds cannot be an API key") as grader:
        judge.refuse_unusable()
    assert not seen(KEY, repr(engine.value) + repr(grader.value) + repr(engine.value.__cause__))
    assert server.sent == []


# --- options ---------------------------------------------------------------------------------------------------------

SECRET_ADDRESSES = (
    "https://me:{}@host/v1", "https://{}@host/v1", "https://host/v1?api_key={}", "https://host/v1?x=1&token={}",
    "https://host/v1#{}", "https://host:{}/v1", "http://[{}]/v1", "{}", "https://host/{}/v1", "https://@host/{}",
    "https://host/v1?{}", "ftp://{}/v1", "https://ho st/{}", "https://host/v1\n{}",
)  # fmt: skip
LIKELY = "sk-proj-4f9aQz7x9Vw2kJ4mT8bN6"


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_addresses_with_a_secret_are_refused_unseen(address: str, tmp_path: Path, cli: Any) -> None:
    with pytest.raises(ValueError, match="base_url") as found:
        check_base_url(address.format(LIKELY))
    assert not seen(LIKELY, str(found.value))
    matrix = {
        "name": "m",
        "students": {"h": {"use": "hosted", "model": "m"}},
        "engines": {"api": {"base_url": address.format(LIKELY)}},
        "evaluations": {"open_weird": {"grader_options": {"model": "m", "base_url": address.format(LIKELY)}}},
    }
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    ran = cli("plan", tmp_path / "matrix.yaml")
    assert ran.code == 2 and "matrix.yaml" in ran.err and ran.err.count("base_url") >= 2
    assert not seen(LIKELY, ran.out + ran.err)


@pytest.mark.parametrize(
    "address",
    [
        "https://api.example.com/v1",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:80/v1",
        "https://host/openai/deployments/gpt-4o-2024-08-06/v1",
        "http://user.host-1/v1",
    ],
)
def test_addresses_without_one_are_fine(address: str) -> None:
    check_base_url(address)


SECRET_FIELDS: tuple[Any, ...] = (
    {"api_key": "{}"}, {"apiKey": "{}"}, {"X-Api-Key": "{}"}, {"authorization": "{}"},
    {"headers": {"Authorization": "{}"}},
    {"extra_headers": {"x-goog-api-key": "{}"}}, {"token": "{}"}, {"access_token": "{}"}, {"auth": {"token": ["{}"]}},
    {"password": "{}"}, {"metadata": [{"deep": {"client_secret": "{}"}}]}, {"HF_TOKEN": "{}"}, {"cookie": "{}"},
    {"note": "Bearer {}"}, {"webhook": "https://me:{}@host"}, {"webhook": "https://host/?api_key={}"}, {"note": "{}"},
    {"{}": 1},
)  # fmt: skip


@pytest.mark.parametrize("fields", SECRET_FIELDS)
def test_fields_with_a_secret_are_refused_unseen(fields: Any, tmp_path: Path, cli: Any) -> None:
    fields = json.loads(json.dumps(fields).replace("{}", LIKELY))
    with pytest.raises(ValueError, match="environment variable") as found:
        ApiOptions(extra_body=fields)
    assert not seen(LIKELY, str(found.value))
    matrix = {
        "name": "m",
        "students": {"h": {"use": "hosted", "model": "m"}},
        "engines": {"api": {"extra_body": fields}},
    }
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix | {"evaluations": {"coins": {}}}))
    ran = cli("plan", tmp_path / "matrix.yaml")
    assert ran.code == 2 and "extra_body" in ran.err
    assert not seen(LIKELY, ran.out + ran.err)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_cache_key": "mine", "user": "me", "max_completion_tokens": 5, "stop_token": "</s>"},
        {"thinking": {"type": "enabled", "budget_tokens": 100}, "reasoning_effort": "high"},
        {"chat_template_kwargs": {"enable_thinking": True, "think_end_token": "</think>"}, "token": 5},
        {"response_format": {"json_schema": {"properties": {"password": {"type": "string"}}, "required": ["token"]}}},
        {"guided_regex": "https?://.*", "documentation": "https://host/page?q=1", "return_token_ids": True},
    ],
)
def test_fields_without_one_are_fine(fields: Any) -> None:
    check_fields("extra_body", fields)


STRUCTURES: tuple[dict[str, Any], ...] = (
    {"engines": {"api": f"https://me:{LIKELY}@host"}},
    {"engines": f"https://me:{LIKELY}@host"},
    {"engines": {"api": {"api_key": LIKELY, "headers": {"Authorization": f"Bearer {LIKELY}"}}}},
    {"engines": {"api": {"extra_body": f"api_key={LIKELY}", "base_url": [LIKELY], "api_key_env": {"a": LIKELY}}}},
    {"matrix": {"engine.base_url": [f"https://me:{LIKELY}@host/v1", "http://a/v1"]}},
    {"matrix": {"engine.extra_body": [{"api_key": LIKELY}, {}]}},
    {"matrix": {"include": [{"engine.base_url": f"https://host/v1?api_key={LIKELY}"}]}},
    {"defaults": {"engine": {"base_url": f"https://host/v1?api_key={LIKELY}"}}},
    {"evaluations": {"open_weird": {"grader_options": f"api_key={LIKELY}"}}},
    {"evaluations": {"open_weird": {"grader_options": {"model": LIKELY, "api_key_variable": LIKELY}}}},
    {"engines": {"api": {"model": LIKELY}}},
    {"students": {"h": {"use": "hosted", "model": LIKELY}}},
)


@pytest.mark.parametrize("change", STRUCTURES)
def test_a_secret_in_the_wrong_place_of_a_matrix_is_refused_unseen(
    change: dict[str, Any], tmp_path: Path, cli: Any
) -> None:
    matrix = {"name": "m", "students": {"h": {"use": "hosted", "model": "m"}}, "engines": {"api": {}}}
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix | {"evaluations": {"coins": {}}} | change))
    ran = cli("plan", tmp_path / "matrix.yaml")
    assert ran.code == 2 and "mistake" in ran.err
    assert not seen(LIKELY, ran.out + ran.err), ran.err


def test_words_are_no_secrets() -> None:
    for text in (
        "basic arithmetic",
        "the bearer understands",
        "max_tokens=5",
        "https://host/a@b",
        "task-2024-01-01-of-all",
    ):
        assert masked(text) == text


@pytest.mark.parametrize("variable", [LIKELY, "hf_abcDEF1234567890abcd", "gsk_4f9aQz7x9Vw2kJ4mT8bN6", "a b", "", "1X"])
def test_a_key_in_the_place_of_its_variable_is_refused_unseen(variable: str) -> None:
    for option in ({"api_key_env": variable}, {"api_key_variable": variable}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be the name") as found:
            (ApiOptions if "api_key_env" in option else JudgeOptions)(**option)
        assert not variable or variable == "a b" or variable not in str(found.value)
    check_variable("api_key_env", "MY_KEY")


@pytest.mark.parametrize("variable", ["f00dfacef00dfacef00dface", "AKIAIOSFODNN7EXAMPLE"])
def test_a_key_that_could_be_a_name_is_not_repeated(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="does not hold an API key") as found:
        read_key(variable)
    assert variable not in str(found.value)
    with pytest.raises(ValueError, match="variable NO_SUCH_KEY does not"):
        read_key("NO_SUCH_KEY")


def test_options_that_hold_the_key_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    options: dict[str, Any] = {"extra_body": {"user": f"me-{KEY}"}, "api_key_env": "A_KEY"}
    with pytest.raises(StageError, match="its options hold the API key itself") as found, opened(server, **options):
        raise AssertionError
    assert not seen(KEY, str(found.value))


# --- hostile servers -------------------------------------------------------------------------------------------------

RUBRIC = Path(__file__).parents[3] / "tasks/distillbench_tasks/open_ended/rubric.md"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that wants a key, which a user's file gave with the end of its line."""
    monkeypatch.setenv("A_KEY", f"{KEY}\r")
    with serve() as running:
        yield running


def echoes(form: Callable[[str], str]) -> dict[str, Reply]:
    """Everything a server may send, with the key in it."""
    told = form(KEY)
    page = {"message": told, "type": told, "param": {told: [told]}}
    whole = json.loads(chat(f"It is {told}.", reasoning_content=f"Hm, {told}").body)
    token = {"token": told, "logprob": -0.1, "bytes": list(told.encode()), "top_logprobs": [{"token": told}]}
    whole["choices"][0]["logprobs"] = {"content": [token]}
    halves = json.dumps({"choices": [{"delta": {"content": told[: len(told) // 2]}}]})
    other = json.dumps({"choices": [{"delta": {"content": told[len(told) // 2 :]}, "finish_reason": "stop"}]})
    header = "".join(char for char in told if char.isprintable() and char.isascii())
    return {
        "answer": as_json(whole | {"model": told, "id": told, "system_fingerprint": told}),
        "cut": chat(f"x {told[: len(told) * 2 // 3]}", "length"),
        "split": chat(told[len(told) // 2 :], reasoning=told[: len(told) // 2]),
        "parts": chat([{"type": "text", "text": told[:9]}, {"type": "text", "text": told[9:]}]),
        "pieces": Reply(f"data: {halves}\n\ndata: {other}\n\ndata: [DONE]\n\n".encode()),
        "broken": Reply(f"data: {halves}\n\ndata: {json.dumps({'error': page})}\n\n".encode()),
        "a kind of part": chat([{"type": told}]),
        "refused": chat(None, refusal=told),
        "reason": chat("x", told),
        "400": as_json({"error": page}, 400),
        "500": as_json(page, 500, headers={"Retry-After": "0"}),
        "html": Reply(f"<html>{'x' * 290}{told}".encode(), 502),
        "moved": Reply(told.encode(), 307, {"Location": f"http://host/{header}"}),
        "headers": Reply(chat("ok").body, 200, {"Set-Cookie": f"{header}=1", "X-Sent": header, "Content-Type": header}),
        "garbage": Reply(told.encode()),
        "a line": Reply(f"HTTP/1.1 {header}\r\n\r\n".encode(), raw=True),
        "a status": Reply(f"HTTP/1.1 500 {header}\r\nBad {header}: {header}\r\n\r\n".encode(), raw=True),
        "content": chat({"a": {told: told}}),
        "usage": as_json(json.loads(chat("ok").body) | {"usage": {told: told, "completion_tokens": told}}),
    }


@pytest.mark.parametrize("form", ["as it is", "percent", "json", "base64 of a header", "html", "over lines"])
def test_nothing_that_a_server_sends_carries_the_key(server: Server, form: str, caplog: Any, capfd: Any) -> None:
    server.script = {name: [reply] for name, reply in echoes(FORMS[form]).items()}
    told = FORMS[form](KEY)
    owner = as_json({"data": [{"id": told, "owned_by": "vllm"}, {"owned_by": told}]})
    server.pages = {"/v1/models": owner, "/version": as_json({"version": told})}
    with caplog.at_level(logging.DEBUG), opened(server, api_key_env="A_KEY", retries=1) as session:
        found = answers(session, asks("good", *server.script))
        kept = [repr(session.facts), *(repr(one) for one in found.values())]
        server.behave = lambda sent: refusal(401, told)
        with pytest.raises(StageError) as stopped:
            list(session.generate([batch(asks("last"))]))
    assert {sent.headers["authorization"] for sent in server.sent} == {f"Bearer {KEY}"}
    assert found["answer"].error is None and HIDDEN in found["answer"].text, "an answer is kept, without the key"
    assert found["headers"].text == found["usage"].text == "ok"
    printed = "".join(capfd.readouterr())
    for text in (*kept, str(stopped.value), repr(stopped.value.__cause__), caplog.text, printed):
        assert not seen(KEY, text), text
        assert not Secrets([KEY]).are_in(text.replace(HIDDEN, " # ")), text


@pytest.mark.parametrize("form", ["as it is", "json", "base64"])
def test_nothing_that_a_judge_sends_carries_the_key(server: Server, form: str, tmp_path: Path, caplog: Any) -> None:
    told = FORMS[form](KEY)
    marks = dict.fromkeys(("insight", "coherence", "accuracy", "engagement", "overall"), 7)
    good = chat(json.dumps({"reason": f"I was sent {told}", **marks}))
    replies = [*echoes(FORMS[form]).values(), good]
    judge = Judge(
        JudgeOptions(
            model="m", rubric=RUBRIC, base_url=server.base_url, api_key_variable="A_KEY", repeats=1, max_retries=0
        )
    )
    server.behave = lambda sent: replies[int(sent.asked.rpartition("\n")[0].rpartition("\n")[2])]
    with caplog.at_level(logging.DEBUG), judge.open(Context(tmp_path)) as grading:
        asked = [(problem("Why?", ""), str(number)) for number in range(len(replies))]
        found = list(grading.judge_all(asked))
    assert found[-1].error is None and found[-1].scores["score"] == 0.7
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and HIDDEN in files[0]
    for text in (*map(repr, found), *files, caplog.text):
        assert not seen(KEY, text), text
        assert not Secrets([KEY]).are_in(text.replace(HIDDEN, " # ")), text


def test_tokens_that_spell_the_key_are_not_kept(server: Server, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "abcdefghijkl")
    spelled = tiny.tokenizer.encode("so abcdefghijkl", add_special_tokens=False)
    server.behave = lambda sent: completion(sent.body["prompt"], spelled, "length")
    with opened_tokens(server, tiny, api_key_env="A_KEY") as session:
        [found] = answers(session, [ids_request(tiny, 5, 6)]).values()
    assert found.error == "the completion's tokens spell the API key"
    assert found.token_ids == ()


@pytest.mark.parametrize("named", ["http_proxy", "all_proxy"])
def test_the_password_of_a_proxy_is_hidden(
    server: Server, monkeypatch: pytest.MonkeyPatch, named: str, tmp_path: Path
) -> None:
    """The proxy is the server of the test, which repeats what it is sent."""
    monkeypatch.setenv(named, server.base_url.replace("http://", "http://me:pass-4f9aQz7x@"))
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("default login me password another-4f9aQz7x\n")
    server.behave = lambda sent: chat(json.dumps(dict(sent.headers)))
    with opened(Server(base_url="http://elsewhere.example/v1"), api_key_env="A_KEY") as session:
        found = answers(session, asks("it"))["it"]
    [sent] = server.asked
    assert sent.headers["authorization"] == f"Bearer {KEY}", "and not what .netrc says"
    assert base64.b64decode(sent.headers["proxy-authorization"].split()[1]) == b"me:pass-4f9aQz7x"
    assert found.text.count(HIDDEN) == 2
    assert not Secrets(["pass-4f9aQz7x"]).are_in(found.text)


# --- one whole run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_key_is_in_no_file_of_a_run_and_on_no_line(server: Server, run_cli: Any, tmp_path: Path) -> None:
    """The same hostile server is the model's and the judge's; everything that the run leaves is looked through."""
    replies = list(echoes(FORMS["as it is"]).values())
    marks = dict.fromkeys(("insight", "coherence", "accuracy", "engagement", "overall"), 7)

    def behave(sent: Sent) -> Reply:
        if sent.body["model"] == "judge" and len(server.asked) % 2:
            return chat(json.dumps({"reason": KEY, **marks}))
        return replies[len(server.asked) % len(replies)]

    server.behave = behave
    server.pages = {"/v1/models": as_json({"data": [{"owned_by": "vllm"}]}), "/version": as_json({"version": KEY})}
    judge = {"model": "judge", "base_url": server.base_url, "api_key_variable": "A_KEY", "max_retries": 0, "repeats": 1}
    matrix = {
        "name": "hostile",
        "students": {"h": {"use": "hosted", "model": "m"}},
        "engines": {"api": {"base_url": server.base_url, "api_key_env": "A_KEY", "retries": 0, "concurrency": 2}},
        "evaluations": {"open_weird": {"max_tokens": 16, "grader_options": judge}, "coins": {"limit": 20}},
    }
    path, store = tmp_path / "matrix.yaml", tmp_path / "store"
    path.write_text(yaml.safe_dump(matrix))
    ran = run_cli("--store", store, "run", path, A_KEY=f"{KEY}\r")
    assert ran.code == 3, ran.out + ran.err
    asked = len(server.asked)
    assert asked > 44
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert len(files) > 10
    texts = [ran.out, ran.err, *map(str, files)]
    for name, columns in parquet_rows(store).items():
        texts += [f"{name}: {columns}"]
    for file, content in files.items():
        texts.append(f"{file}: {content.decode(errors='replace')}")
    for text in texts:
        assert KEY[:12] not in text and KEY[-12:] not in text, text[:200]
        assert base64.b64encode(f"Bearer {KEY}".encode()).decode()[12:24] not in text, text[:200]


def parquet_rows(folder: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    return {str(path): repr(pq.read_table(path).to_pylist()) for path in folder.rglob("*.parquet")}
