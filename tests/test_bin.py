"""bin/audioldm and bin/test from a fresh clone, with a stand-in for python3 that installs in no time.

The stand-in answers ``-m venv`` and ``-m pip`` and keeps a log of the installations; all else is done by the
real Python. The scripts under test are the real ones.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PYTHON = f"""#!/bin/sh
case "$1 $2" in
"-m venv")
    mkdir -p "$3/bin" && ln -s "$0" "$3/bin/python" ;;
"-m pip")
    [ "$3" = install ] || exit 0
    echo "$*" >>"$PIP_LOG"
    echo "Collecting torch"
    sleep "${{PIP_SECONDS:-0}}"
    [ -z "$PIP_FAILS" ] || exit 1
    for command in audioldm audioldm-translator audioldm-web; do
        printf '#!/bin/sh\\necho "ran in $PWD:" "$@"\\n' >"${{0%/*}}/$command"
        chmod +x "${{0%/*}}/$command"
    done
    for checker in lint-imports basedpyright; do
        printf '#!/bin/sh\necho "%s" "$@"\n[ "$CHECKER_FAILS" != %s ]\n' $checker $checker >"${{0%/*}}/$checker"
        chmod +x "${{0%/*}}/$checker"
    done ;;
"-m ruff" | "-m pytest")
    echo "$@" ;;
*)
    exec "{sys.executable}" "$@" ;;
esac
"""


class Clone:
    """A checkout with only what bin/ reads, in a folder with a space in its name."""

    def __init__(self, folder: Path):
        self.root, self.log = folder / "my clone", folder / "pip.log"
        shutil.copytree(ROOT / "bin", self.root / "bin")
        for name in ("setup.py", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root)
        self.python = folder / "python3"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def start(self, *command: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if k != "AUDIOLDM_VENV"}
        environment |= {"PYTHON": str(self.python), "PIP_LOG": str(self.log), **variables}
        return subprocess.Popen(command, cwd=cwd or self.root, env=environment, start_new_session=True,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *command: str | Path, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*command, cwd=cwd, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def installations(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_first_run_installs_and_later_runs_start_at_once(clone: Clone):
    code, out, err = clone.run("bin/audioldm", "-t", "a dog")
    assert (code, out) == (0, f"ran in {clone.root}: -t a dog\n")
    assert "Collecting" in err and "installing into" in err
    (line,) = clone.installations()
    assert "--constraint constraints.txt --editable ." in line
    assert clone.run("bin/audioldm", "again") == (0, f"ran in {clone.root}: again\n", "")
    assert len(clone.installations()) == 1


def test_any_folder_and_a_symlink(clone: Clone, tmp_path: Path):
    link = tmp_path / "elsewhere" / "sound"
    link.parent.mkdir()
    link.symlink_to(clone.root / "bin" / "audioldm")
    code, out, _ = clone.run("./sound", "x", cwd=link.parent)
    assert (code, out) == (0, f"ran in {link.parent}: x\n")
    assert (clone.root / ".venv").is_dir()


@pytest.mark.parametrize("file", ["setup.py", "pyproject.toml", "constraints.txt"])
def test_changed_requirements_install_again(clone: Clone, file: str):
    clone.run("bin/audioldm")
    with open(clone.root / file, "a") as out:
        out.write("# changed\n")
    assert clone.run("bin/audioldm")[0] == 0
    assert clone.run("bin/audioldm")[2] == ""
    assert len(clone.installations()) == 2


def test_a_moved_checkout_installs_again(clone: Clone, tmp_path: Path):
    clone.run("bin/audioldm")
    clone.root = clone.root.rename(tmp_path / "moved")
    assert clone.run("bin/audioldm")[0] == 0
    assert len(clone.installations()) == 2


def test_bin_test_adds_the_extra_and_bin_audioldm_uses_the_same_environment(clone: Clone):
    clone.run("bin/audioldm")
    code, out, _ = clone.run(clone.root / "bin" / "test", "-k", "mel", cwd=Path("/"))
    python = clone.root / ".venv" / "bin" / "python"
    checks = f"-m ruff check .\nlint-imports --no-logo --no-cache\nbasedpyright --pythonpath {python}\n"
    assert (code, out) == (0, f"{checks}-m pytest -k mel\n")
    assert clone.run("bin/audioldm")[2] == clone.run("bin/test")[2] == ""
    for checker in ("lint-imports", "basedpyright"):
        code, out, _ = clone.run("bin/test", CHECKER_FAILS=checker)
        assert (code, out) == (1, f"{checks}-m pytest\n"), "the tests run all the same"
    assert [line.split()[-1] for line in clone.installations()] == [".", ".[test]"]


def test_commands_with_other_extras_do_not_undo_each_other(clone: Clone):
    for command in ("audioldm-web", "audioldm-translator", "audioldm-web", "audioldm", "audioldm-translator"):
        assert clone.run(f"bin/{command}", "x")[:2] == (0, f"ran in {clone.root}: x\n")
    assert [line.split()[-1] for line in clone.installations()] == [".[web]", ".[train]"]
    with open(clone.root / "constraints.txt", "a") as out:
        out.write("# changed\n")
    for command in ("audioldm-web", "audioldm-translator"):
        clone.run(f"bin/{command}")
    assert len(clone.installations()) == 4


def test_a_failed_installation_is_reported_and_done_anew(clone: Clone):
    code, out, err = clone.run("bin/audioldm", PIP_FAILS="1")
    assert (code, out) == (1, "") and err.endswith("the installation failed, see pip's message above.\n")
    half = clone.root / ".venv" / "half a package"
    half.touch()
    assert clone.run("bin/audioldm")[0] == 0
    assert not half.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_installation_is_done_anew(clone: Clone, number: int, code: int):
    process = clone.start("bin/audioldm", PIP_SECONDS="30")
    while not clone.installations():
        assert process.poll() is None
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:  # a signal may come between two commands
        os.killpg(process.pid, number)
        time.sleep(0.1)
    assert process.communicate(timeout=1)[0] == "" and process.returncode == code
    half = clone.root / ".venv" / "half a package"
    half.touch()
    assert clone.run("bin/audioldm")[0] == 0
    assert not half.exists()


def test_two_first_runs_at_once_install_once(clone: Clone):
    both = [clone.start("bin/audioldm", "x", PIP_SECONDS="1") for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert [out for out, _ in results] == [f"ran in {clone.root}: x\n"] * 2
    assert [p.returncode for p in both] == [0, 0]
    assert sum("waiting for another installation" in err for _, err in results) == 1
    assert len(clone.installations()) == 1


def refuse(clone: Clone, what: str) -> None:
    """From now on, the stand-in fails on a ``-c`` program that contains ``what``."""
    clone.python.write_text(PYTHON.replace("*)\n", f'"-c "*{what}*) exit 1 ;;\n*)\n'))


@pytest.mark.parametrize(("what", "sentence"), [("version_info", "Python 3.10 or newer is needed"),
                                                ("ensurepip", "lacks the standard module venv")])
def test_an_unfit_python_is_refused_in_one_sentence(clone: Clone, what: str, sentence: str):
    refuse(clone, what)
    code, out, err = clone.run("bin/audioldm")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("audioldm: error: ") and sentence in err
    assert not (clone.root / ".venv").exists()


def test_the_environment_may_lie_elsewhere(clone: Clone, tmp_path: Path):
    code, out, _ = clone.run(clone.root / "bin" / "audioldm", "x", cwd=tmp_path, AUDIOLDM_VENV="a b/venv")
    assert (code, out) == (0, f"ran in {tmp_path}: x\n")
    assert (tmp_path / "a b" / "venv").is_dir() and not (clone.root / ".venv").exists()


def test_no_python_is_refused_in_one_sentence(clone: Clone):
    code, out, err = clone.run("bin/audioldm", PYTHON="no-such-python3")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Python 3.10 or newer is needed" in err


def test_an_unwritable_place_is_refused_in_one_sentence(clone: Clone, tmp_path: Path):
    (tmp_path / "file").touch()
    code, out, err = clone.run("bin/audioldm", AUDIOLDM_VENV=str(tmp_path / "file" / "venv"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot write to" in err
