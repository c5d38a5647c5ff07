r"""Multiple choice: `\textbf{(C) } 12` and `\text{Option C}` say C, as contests write it."""

from __future__ import annotations

import re

_SETTING = re.compile(
    r"\\(?:text\w{0,2}|math(?:rm|bf|it|sf|normal)|mbox|hbox|boldsymbol|bm|q?quad)(?![A-Za-z])|\\[,;:! ]|[{}~\s]+"
)
_GOLD = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? ?(?:\((?P<framed>[A-Ja-j])\)|(?P<named>[A-J]))"
    r"|\((?P<alone>[A-J])\)|(?P<typed>[A-J])[).:])(?:[.:]? (?P<rest>.*)|[.:]?)",
    re.IGNORECASE,
)
#: What follows is no value beside the letter: another letter, or the letter is a variable.
_MORE = re.compile(
    r"[+*/^=<>,-]|\\(?:cdot|times|cup|cap|[gl]eq|neq|pm)|(?:is|isn't|not|cannot|was)\b|[A-J][.)]?$"
    r"|.*(?:\([A-J]\)|\b(?:and|or|not|option|choice) [A-J]\b)"
)


def is_chosen(gold: str, answer: str) -> bool:
    """Whether an answer names the choice that the gold answer is, with the word for it or the choice's value."""
    wanted, found = _GOLD.fullmatch(_plain(gold)), _CHOSEN.fullmatch(_plain(answer))
    if wanted is None or found is None or _MORE.match(found["rest"] or ""):
        return False
    return wanted[1] == (found["framed"] or found["named"] or found["alone"] or found["typed"])


def _plain(text: str) -> str:
    return re.sub(" +", " ", _SETTING.sub(" ", text)).strip()
