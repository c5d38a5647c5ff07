"""What everything that talks to an OpenAI-compatible API shares: its address, and errors without the key in them."""

from __future__ import annotations

from urllib.parse import urlsplit

_MOST_SHOWN = 300


def check_base_url(base_url: str) -> None:
    """Refuses an address that is none, or that may hold a secret.

    Raises:
        ValueError: What is wrong with it.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url must be like https://HOST/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("base_url must hold no user, password or query: it is stored with the results")


def on_one_line(text: str, api_key: str | None) -> str:
    """A server's words on one line, cut where they are long, and never with the key in it, which servers repeat.

    Nothing may have been cut off before: of a key that is cut in two, the first half would be shown. Halves of
    characters, which JSON can hold and UTF-8 cannot, become question marks.
    """
    hidden = text.replace(api_key, "[API key]") if api_key else text
    line = " ".join(hidden.encode(errors="replace").decode().split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
