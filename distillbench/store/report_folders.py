"""Where reports lie in a store: one folder for each matrix, and in it one for each part of it that was reported.

<root>/reports/<matrix>/             the whole
<root>/reports/<matrix>/limit-5/     a part of it (`--limit 5`, `--fast`, `--only CELL`)
<root>/reports/<matrix>/earlier-*/   an earlier report, with numbers that the newest has not
"""

from __future__ import annotations

from pathlib import Path

#: In a report's folder: the keys of the stages that it is made of, its matrix, and what that matrix keeps.
STAGES = "stages.json"
#: The file that a person reads.
REPORT = "report.md"
#: What the report was made with.
LOCK = "lock.json"
#: How the folders of earlier reports begin: these are only looked at, and need nothing of the store.
EARLIER = "earlier-"


def report_folders(root: Path) -> list[Path]:
    """The folder of every report, and of every part of one."""
    found = []
    for whole in sorted((root / "reports").glob("*")):
        if whole.is_dir():
            found += [whole, *parts(whole)]
    return found


def parts(whole: Path) -> list[Path]:
    """The folders of the parts of one report."""
    names = {path.parent for name in (STAGES, REPORT) for path in whole.glob(f"*/{name}")}
    return sorted(path for path in names if not path.name.startswith(EARLIER))
