"""Options of whatever asks a server: what may hold a secret is refused, in words that do not show it.

Options are stored with the results and shown in plans; a key has its place in an environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from distillbench.errors import SECRET_TEXT

_HINT = "put the key into an environment variable, and name that variable"
#: Names whose texts are secrets; without signs, in lower case. `prompt_cache_key` and `stop_token` are none of them.
_SECRET_NAME = re.compile(
    r"(?:\w*(?:authorization|apikey|accesskey|accesskeyid|secretkey|privatekey|subscriptionkey|authkey|signature"
    r"|password|passwd|passphrase|secret|credentials?|cookie|bearer)"
    r"|(?:\w*(?:access|auth|api|bearer|hf|hub|huggingface|github|gitlab|id|refresh|session|security|user|service|account"
    r"|personal|client|private|x))?token|auth|jwt|key|sig|pwd|pass)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_base_url(base_url: str) -> None:
    """Refuses an address that is none, or that may hold a secret.

    Raises:
        ValueError: What is wrong with it.
    """
    wanted = "base_url must be like https://HOST/v1"
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(wanted) from None  # its text shows a part of the address
    if "@" in base_url or parts.query or parts.fragment or "?" in base_url or "#" in base_url:
        raise ValueError(
            f"base_url must hold no user, password, query or fragment: it is stored with the results; {_HINT}"
        )
    if (
        parts.scheme not in ("http", "https")
        or not host
        or port == 0
        or re.search(r"[\s\x00-\x1f\x7f%\\]", parts.netloc)
    ):
        raise ValueError(wanted)
    if not base_url.isprintable() or re.search(r"\s", base_url):
        raise ValueError(f"{wanted}, without blanks and line breaks")
    if SECRET_TEXT.search(base_url):
        raise ValueError(f"base_url holds what looks like an API key, and is stored with the results; {_HINT}")


def check_model(model: str | None) -> None:
    """Refuses an API key in the place of a model's name.

    Raises:
        ValueError: It looks like one.
    """
    if model is not None and SECRET_TEXT.search(model):
        raise ValueError(f"model holds what looks like an API key, and is stored with the results; {_HINT}")


def check_variable(option: str, variable: str | None) -> None:
    """Refuses what cannot be the name of an environment variable: an API key that stands in its place.

    Raises:
        ValueError: It is none.
    """
    if variable is None:
        return
    if not _VARIABLE.fullmatch(variable) or SECRET_TEXT.search(variable):
        raise ValueError(f"{option} must be the name of an environment variable that holds the key, not the key itself")


def check_fields(option: str, fields: Mapping[str, Any]) -> None:
    """Refuses further fields of requests that hold a secret, at any depth.

    Raises:
        ValueError: Which of them does.
    """
    if place := next(_secret_places(fields), None):
        raise ValueError(f"{option} {place}: it looks like a secret, and is stored with the results; {_HINT}")


def _secret_places(value: Any, names: tuple[str, ...] = ()) -> Iterator[str]:
    """The names that lead to texts that are secrets; a name that looks like one itself is not told."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            if SECRET_TEXT.search(str(name)):
                yield ".".join([*names, "(a name)"])
            yield from _secret_places(entry, (*names, str(name)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            yield from _secret_places(entry, names)
    elif isinstance(value, str) and value and (_is_secret_name(names[-1]) or _holds_secret(value)):
        yield ".".join(names)


def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())) is not None


def _holds_secret(text: str) -> bool:
    """Whether a text is a key, an address with a password, or one with a key in its query."""
    if SECRET_TEXT.search(text):
        return True
    try:
        parts = urlsplit(text.strip())
        pairs = parse_qsl(parts.query)
    except ValueError:
        return False
    if not parts.scheme or not parts.netloc:
        return False
    return bool(parts.password or parts.username) or any(_is_secret_name(name) and value for name, value in pairs)
