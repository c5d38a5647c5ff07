"""Finds the fenced blocks of the pages, so that tests run them. The conventions are in CONTRIBUTING.md."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
if not (ROOT / "mkdocs.yml").exists():
    pytest.skip("the docs are not beside these tests", allow_module_level=True)

MATRIX, PART = "matrix.yaml", "part of matrix.yaml"
#: What a part of a matrix is put into.
BASE = """
teachers: {concise: {use: synthetic, style: concise}, verbose: {use: synthetic, style: verbose}}
students: {tiny: {use: tiny-qwen3}}
filters: {right: {use: correct_only}, fits: {use: max_tokens, limit: 256}}
trainers: {lora: {use: sft, max_steps: 80, checkpoint_every: 20}}
evaluations: {coins: {}}
matrix: {}
"""
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The `distillbench` command lines of a shell block, as arguments."""
        if self.language not in ("bash", "console"):
            return []
        lines = [line.removeprefix("$ ") for line in self.text.splitlines()]
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("distillbench ")]

    def outputs(self) -> list[str]:
        """What a console block shows after its commands."""
        lines = self.text.splitlines() if self.language == "console" else []
        return [line for line in lines if not line.startswith("$ ")]

    def write(self, folder: Path) -> None:
        """Writes the file that the title names; a part of a matrix is put into a whole one."""
        if self.title is None:
            return
        title, text = self.title, self.text
        if title == PART:
            title, text = MATRIX, yaml.safe_dump(yaml.safe_load(BASE) | yaml.safe_load(self.text), sort_keys=False)
        path = folder / title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    return tuple(
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2], found[3])
        for found in _FENCE.finditer(text)
    )


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in pages() for block in blocks_of(page) if block.language in languages]


def write_page(page: Path, folder: Path, until: Block | None = None) -> None:
    """Writes every file of a page, up to and with one block, in their order."""
    for block in blocks_of(page):
        block.write(folder)
        if block == until:
            return


def module_from(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is executed
    spec.loader.exec_module(module)
    return module


@cache
def generator() -> ModuleType:
    """What writes the blocks that are made from the code."""
    return module_from(ROOT / "docs" / "generated.py", "docs_generated")


def text_of(page: str) -> str:
    """A page of the docs."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def table_keys(text: str, heading: str) -> list[str]:
    """The first column of the first table below a heading, without backticks."""
    rows = text.split(f"{heading}\n", 1)[1].partition("\n|")[2].partition("\n\n")[0].splitlines()[2:]
    return [row.removeprefix("|").partition("|")[0].strip().strip("`") for row in rows]
