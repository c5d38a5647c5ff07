"""Keys and digests: the same meaning gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench import fingerprint
from distillbench.fingerprint import canonical_json, digest_files, digest_path, key_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same value with every mapping written in another order, and tuples for lists."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return tuple(shuffled(entry) for entry in value) if isinstance(value, list) else value


def typed(value: Any) -> Any:
    """A value whose `==` tells 1, 1.0 and true apart."""
    if isinstance(value, dict):
        return {key: typed(entry) for key, entry in value.items()}
    return [typed(entry) for entry in value] if isinstance(value, list) else (type(value), repr(value))


@given(PLAIN)
def test_the_order_of_a_mapping_does_not_matter(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(shuffled(value)) == text
    assert json.loads(text) == value
    assert text.isascii() and "\n" not in text


@given(PLAIN, PLAIN)
def test_keys_differ_where_values_do(one: Any, other: Any) -> None:
    assert (key_of(one) == key_of(other)) == (typed(one) == typed(other))


def test_a_key_is_128_bits_of_the_sha256_of_the_canonical_text() -> None:
    assert canonical_json({"b": 1, "a": [True, None, 1.5]}) == '{"a":[true,null,1.5],"b":1}'
    wanted = hashlib.sha256(b'{"a":[true,null,1.5],"b":1}').hexdigest()[:32]
    assert key_of({"b": 1, "a": (True, None, 1.5)}) == wanted


def test_one_is_not_true_and_not_a_text() -> None:
    assert len({key_of(value) for value in (1, True, "1", 1.5, [1], None, {}, [], "")}) == 9


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    threads: int = field(default=1, metadata={"key": False})


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    path: Path = Path("a/b")


class Colour(Enum):
    RED = "red"


def test_fields_that_only_affect_speed_are_left_out_at_every_depth() -> None:
    assert canonical_json(Outer()) == '{"inner":{"rate":0.1},"path":"a/b"}'
    assert key_of(Outer(Inner(threads=8))) == key_of(Outer())
    assert key_of(Outer(Inner(rate=0.2))) != key_of(Outer())


def test_sets_paths_and_enumerations_have_one_form() -> None:
    assert (
        canonical_json({"s": frozenset("cab"), "p": Path("x") / "y", "c": Colour.RED})
        == '{"c":"red","p":"x/y","s":["a","b","c"]}'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": math.nan}], Inner(rate=math.nan)])
def test_what_is_no_number_has_no_key(value: Any) -> None:
    with pytest.raises(ValueError):
        key_of(value)


@pytest.mark.parametrize("value", [object(), {"a": b"bytes"}, Inner, {1, "a"}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        key_of(value)


def test_a_file_is_digested_by_content_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"content")
    other.write_bytes(b"content")
    assert digest_path(one) == digest_path(other) == hashlib.sha256(b"content").hexdigest()
    other.write_bytes(b"other content")
    assert digest_path(one) != digest_path(other)


def test_a_digest_follows_a_change_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"aaaa")
    first = digest_path(path)
    path.write_bytes(b"bbbb")
    os.utime(path, ns=(1, 1))  # a copy that keeps an old time must be seen too
    assert digest_path(path) == hashlib.sha256(b"bbbb").hexdigest() != first


def test_a_file_larger_than_a_block(tmp_path: Path) -> None:
    content = os.urandom(fingerprint._BLOCK_BYTES * 2 + 17)
    (tmp_path / "large").write_bytes(content)
    assert digest_path(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_very_large_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of many gigabytes, by every process that plans."""
    monkeypatch.setattr(fingerprint, "_LARGE_BYTES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, read = tmp_path / "weights", []
    real = fingerprint._digest_content

    def counted(one: Path) -> str:
        read.append(one.name)
        return real(one)

    def as_another_process() -> None:
        fingerprint._large_digests.cache_clear()

    monkeypatch.setattr(fingerprint, "_digest_content", counted)
    path.write_bytes(b"x" * 100)
    as_another_process()
    first = digest_path(path, remember=True)
    as_another_process()
    assert digest_path(path, remember=True) == first == hashlib.sha256(b"x" * 100).hexdigest() and read == ["weights"]
    path.write_bytes(b"y" * 101)
    assert digest_path(path, remember=True) == hashlib.sha256(b"y" * 101).hexdigest() and len(read) == 2
    (tmp_path / "cache" / "distillbench" / "digests.json").write_text("{cut off")
    as_another_process()
    assert digest_path(path, remember=True) == hashlib.sha256(b"y" * 101).hexdigest() and len(read) == 3
    (tmp_path / "small").write_bytes(b"small")
    assert digest_path(tmp_path / "small") and digest_path(tmp_path / "small") and read.count("small") == 2
    as_another_process()


def change_content(folder: Path) -> None:
    (folder / "sub" / "b.txt").write_text("changed content")


def add_file(folder: Path) -> None:
    (folder / "new").write_text("")


def rename_file(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "c.txt")


def move_file(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "sub" / "a.txt")


def remove_file(folder: Path) -> None:
    (folder / "a.txt").unlink()


@pytest.mark.parametrize("change", [change_content, add_file, rename_file, move_file, remove_file])
def test_a_folder_is_digested_by_names_and_contents(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        (folder / "sub" / "b.txt").write_text("b")
    assert digest_path(folders[0]) == digest_path(folders[1])
    change(folders[1])
    assert digest_path(folders[0]) != digest_path(folders[1])


def test_named_files_are_known_by_name_and_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    digests = {
        digest_files(named)
        for named in (
            [("a", one), ("b", other)],
            [("b", other), ("a", one)],
            [("a", other), ("b", one)],
            [("a", one)],
            [],
        )
    }
    assert len(digests) == 5


def test_what_is_not_there_cannot_be_digested(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_path(tmp_path / "nothing")
