r"""What an answer is dressed in: colours, frames, braces, fonts around a number, a sign of equality in front."""

from __future__ import annotations

import re

_BODY = r"((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)"
#: Frames around anything, anywhere.
_FRAME = re.compile(
    rf"\\(?:(?:text)?color\s*\{{[^{{}}]*\}}\s*|(?:underline|fbox|framebox|boxed|ensuremath|colorbox\s*\{{[^{{}}]*\}}\s*)(?=\{{))\{{{_BODY}\}}"
)
_COLOR = re.compile(
    r"\\color\s*(?:\{[^{}]*\}|\s[a-z]+)\s*|\\[hv]?phantom\s*\{[^{}]*\}|\\(?:math(?:bf|rm|it)|textbf|bf|rm)\s+(?=[0-9])"
)
_OLD_FONT = re.compile(rf"\{{\s*\\(rm|bf|it)(?![A-Za-z])\s*{_BODY}\}}")
_SIZE = re.compile(
    r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])\s*"
)
_FONT = re.compile(
    rf"\\(?:text\w{{0,2}}|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|mbox|emph|operatorname)\s*\{{\s*{_BODY}\s*\}}"
)
_NESTED = re.compile(
    r"\\(?:text\w{0,2}|mathrm|mathbf|boldsymbol|emph)\s*\{\s*(\\(?:text\w{0,2}|math\w+)\s*\{[^{}]*\})\s*\}"
)
_EMPHASIS = re.compile(r"\\emph(?=\s*\{)")
#: An article in front of a word, a full stop behind it.
_WORDS = re.compile(r"\\text\s*\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=[A-Za-z]{3})", re.IGNORECASE)
_CHOOSE = re.compile(r"\{\s*([^{}\\]+?)\s*\\choose\s*([^{}\\]+?)\s*\}")
_STARS = re.compile(r"(\*\*|__)([^*]+)\1")
#: Says that what follows is the answer.
_FRONT = re.compile(
    r"^(?:(?:=|:|\\text\s*\{(?![^{}]*\b(?:not|least|most|than)\b)[^{}]*\b(?:is|are|equals)\s*:?\s*\}(?=\s*[^\s.])|\\(?:approx|simeq|sim|Rightarrow|implies|therefore|to|Longrightarrow)(?![A-Za-z]))\s*)+"
)
_TAIL = re.compile(r"(?<!\\)[,;]+$|\\\\$|\\(?:checkmark|blacksquare|qed)$")
_LETTER = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]")


def undressed(text: str) -> str:
    """A text without what it is dressed in."""
    if "\\" in text:
        text = _EMPHASIS.sub(r"\\text", _CHOOSE.sub(r"\\binom{\1}{\2}", text))
        if found := _NESTED.fullmatch(text):
            text = found[1]
        if (found := _WORDS.fullmatch(text)) and (said := _ARTICLE.sub("", found[1].strip()).rstrip(" .!")):
            text = f"\\text{{{said}}}"
        text = _OLD_FONT.sub(r"\\math\1{\2}", text)
        text = _SIZE.sub("", _COLOR.sub("", _FRAME.sub(r"\1", text)))
        found = _FONT.fullmatch(text)
        if found and found[1] and (found[1][0].isdigit() or not _LETTER.search(found[1])):
            text = found[1]
    if stars := _STARS.fullmatch(text):
        text = stars[2]
    return _without_braces(_TAIL.sub("", _FRONT.sub("", text)))


def _without_braces(text: str) -> str:
    """`{(2,3)}` without the braces around the whole."""
    if not (text.startswith("{") and text.endswith("}") and not text.endswith("\\}")):
        return text
    depth = 0
    for place, sign in enumerate(text):
        if text[place - 1 : place] != "\\":
            depth += (sign == "{") - (sign == "}")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]
