"""The attacks once more as an ordinary user, where the suite is run as root: both have ways that the other has not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_helpers import ROOT

from distillbench_plugins.grading.sandbox.isolation import _python_folders

USER = "54321"
#: A root folder of its own, because this machine's, or the interpreter's, may be closed to ordinary users. Of the
#: arguments, those before `--` are folders that are to be there.
ENTER = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
shift
while [ "$1" != -- ]; do
    if [ -L "$1" ]; then ln -s "$(readlink "$1")" ".$1"; else mkdir -p ".$1"; mount --rbind "$1" ".$1"; fi
    shift
done
shift
mkdir -p tmp var/tmp home old
chmod 1777 tmp var/tmp home
pivot_root . old
umount -l /old
cd "$1"
shift
exec setpriv --reuid USER --regid USER --clear-groups --inh-caps=-all env HOME=/home "$@"
"""
SYSTEM = ("/usr", "/etc", "/dev", "/proc", "/sys", "/bin", "/sbin", "/lib", "/lib64")


def as_ordinary_user(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a mount namespace in which an ordinary user can reach what tests need."""
    folders = [path for path in (*SYSTEM, *_python_folders(), str(ROOT)) if Path(path).exists()]
    nested = {one for one in folders for other in folders if one != other and Path(one).is_relative_to(other)}
    places = [one for one in folders if one not in nested]
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER.replace("USER", USER), "sh"]
    return subprocess.run(
        [*enter, str(folder), *places, "--", str(ROOT), *command], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "tests",
    [
        ("test_sandbox_calls.py", "test"),
        ("test_sandbox_attacks.py", "refused or wrong_answer or scratch or old_interrupt"),
    ],
)
def test_attacks_are_contained_for_an_ordinary_user_too(tmp_path: Path, tests: tuple[str, str]) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED as root: this suite is run by an ordinary user")
    if not all(map(shutil.which, ("unshare", "pivot_root", "setpriv"))):
        pytest.skip("NOT TESTED as an ordinary user: util-linux is not there")
    if as_ordinary_user(tmp_path, sys.executable, "-c", "import pytest, distillbench").returncode != 0:
        pytest.skip("NOT TESTED as an ordinary user: root may not mount here")
    file, chosen = tests
    command = (
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        f"tests/plugins/grading/{file}",
    )
    ran = as_ordinary_user(tmp_path, *command, f"tests/plugins/grading/{file}", "-k", chosen)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if "NOT TESTED in bubblewrap" in ran.stdout:
        pytest.skip("NOT TESTED in bubblewrap as an ordinary user, only without it: he may not make user namespaces")
