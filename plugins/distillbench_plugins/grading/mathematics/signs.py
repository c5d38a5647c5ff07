r"""Unicode signs of mathematics as the TeX that they stand for: `3√13` is `3\sqrt{13}`, `x²` is `x^{2}`."""

from __future__ import annotations

import re
import unicodedata

_GREEK = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"]
_GREEK += ["xi", "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"]
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi"}
_COMMANDS = {
    "×": "times", "⋅": "cdot", "·": "cdot", "∙": "cdot", "•": "cdot", "÷": "div", "∞": "infty", "∪": "cup",
    "∩": "cap", "∅": "emptyset", "Ø": "emptyset", "∈": "in", "∉": "notin", "⊂": "subset", "⊆": "subseteq",
    "∖": "setminus", "≤": "leq", "⩽": "leq", "≦": "leq", "≥": "geq", "⩾": "geq", "≧": "geq", "≠": "neq",
    "≈": "approx", "≃": "approx", "≅": "cong", "≡": "equiv", "∼": "sim", "±": "pm", "∓": "mp", "→": "to",
    "⇒": "Rightarrow", "⟹": "Rightarrow", "∴": "therefore", "…": "ldots", "⋯": "cdots", "⟨": "langle", "⟩": "rangle",
    "〈": "langle", "〉": "rangle", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "∠": "angle",
    "△": "triangle", "∂": "partial", "∑": "sum", "∏": "prod", "∫": "int", "ϕ": "phi", "ϵ": "epsilon", "∧": "land",
    "∨": "lor", "¬": "neg", "ℓ": "ell",
}  # fmt: skip
_COMMANDS |= {chr(0x3B1 + place): name for place, name in enumerate(_GREEK)} | _CAPITALS | {"Ψ": "Psi", "Ω": "Omega"}
_PLAIN = (
    dict.fromkeys("º˚", "°")
    | dict.fromkeys("“”„", '"')
    | dict.fromkeys("‘’", "'")
    | dict.fromkeys("−–—‐‑‒﹣", "-")
    | {
        "∗": "*",
        "⁄": "/",
        "∕": "/",
        "∣": "|",
        "∶": ":",
        "′": "'",
        "，": ",",
        "。": ".",
        "¢": "\\text{ cents}",
    }
)
_PLAIN |= dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad", "")
_PLAIN |= {sign: f"\\mathbb{{{letter}}}" for sign, letter in zip("ℝℤℕℚℂ", "RZNQC", strict=True)}
_TABLE = str.maketrans(_PLAIN | {sign: f"\\{name} " for sign, name in _COMMANDS.items()})
#: Full-width forms, and letters and digits in mathematical fonts.
_STYLED = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]+")
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵃᵇᵏᵐᵗ]+")
_LOWERED = re.compile("[₀-₉₊₋₌₍₎ₐₑₒₓₙₘₖ]+")
_FRACTION = re.compile("[¼½¾⅐-⅞]")
#: A root and what it is taken of: a number, one letter or command; a bracket is left to the rule for brackets.
_ROOT = re.compile(r"([√∛∜])\s*(?:([0-9]+(?:\.[0-9]+)?|[A-Za-z]|\\pi(?![A-Za-z]))|(?=[{(\\\[]))?")
_ROOT_NAMES = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}


def in_tex(text: str) -> str:
    """A text with the Unicode signs of mathematics written in TeX."""
    if text.isascii():
        return text
    text = _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
    text = _RAISED.sub(lambda found: f"^{{{_upright(found.group())}}}", text)
    text = _LOWERED.sub(lambda found: f"_{{{_upright(found.group())}}}", text)
    text = _FRACTION.sub(lambda found: "\\frac{{{}}}{{{}}}".format(*_upright(found.group()).split("⁄")), text)
    return _ROOT.sub(_root, text.translate(_TABLE))


def _upright(signs: str) -> str:
    return unicodedata.normalize("NFKC", signs).replace("−", "-")


def _root(found: re.Match[str]) -> str:
    name = _ROOT_NAMES[found[1]]
    return f"{name}{{{found[2]}}}" if found[2] else name
