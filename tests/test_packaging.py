"""The wheel, the installed command, the pinned versions and what must not be in the repository."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path

import pytest

import audioldm

ROOT = Path(__file__).resolve().parents[1]
NAME = "audioldm-vision"
FOLDERS = ("audioldm", "translator", "prior_steps", "models")
MODELS = ("starter", "translators")


def repository_files() -> list[Path]:
    """What git would commit, relative to the root; skips where there is no git checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [Path(name) for name in listing.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built offline from a copy because setuptools leaves traces in the source tree."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "LICENSE-Apache-2.0", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    program = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    built = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def read(wheel: zipfile.ZipFile, name: str) -> str:
    """The text of a file in the wheel's dist-info."""
    (path,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_the_wheel_holds_the_code_and_only_it(wheel: zipfile.ZipFile):
    names = {n for n in wheel.namelist() if ".dist-info/" not in n and not n.startswith("audioldm/models/")}
    paths = [path for folder in FOLDERS[:3] for path in (ROOT / folder).rglob("*") if path.is_file()]
    code = {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}
    assert code >= {"audioldm/commands/generate.py", "audioldm/web/range.js", "prior_steps/audiocaps/captions.csv.gz"}
    assert names == code
    assert not [n for n in wheel.namelist() if "recipes" in n]


def test_the_wheel_holds_the_models_whole(wheel: zipfile.ZipFile):
    sizes = {i.filename: i.file_size for i in wheel.infolist() if i.filename.startswith("audioldm/models/")}
    files = [p for folder in MODELS for p in (ROOT / "models" / folder).rglob("*") if p.is_file()]
    assert ROOT / "models" / "starter" / "model_index.json" in files
    for path in files:
        assert sizes[f"audioldm/{path.relative_to(ROOT).as_posix()}"] == path.stat().st_size


def test_an_installed_wheel_finds_its_models(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    program = "from audioldm.registry import find_model; print(find_model('starter').path)"
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == f"{tmp_path.resolve()}/audioldm/models/starter\n", run.stderr


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile):
    metadata = Parser().parsestr(read(wheel, "METADATA"))
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert metadata["Name"] == NAME
    assert metadata["Version"] == audioldm.__version__ == newest[1]
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("License-File")) == {"LICENSE", "LICENSE-Apache-2.0", "NOTICE"}
    assert "audioldm = audioldm.commands.generate:main" in read(wheel, "entry_points.txt")


def installed():
    try:
        return distribution(NAME)
    except PackageNotFoundError:
        pytest.skip(f"{NAME} is not installed here; bin/test installs it")


def test_the_installed_command_runs(tmp_path: Path):
    installed()
    (command,) = entry_points(group="console_scripts", name="audioldm")
    assert command.value == "audioldm.commands.generate:main"
    script = Path(sysconfig.get_path("scripts")) / "audioldm"
    run = subprocess.run([script, "-h"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("usage: audioldm"), run.stderr


@pytest.mark.parametrize("arguments", [["-c", "import audioldm"], ["-m", "audioldm", "-h"]])
def test_the_answer_comes_at_once(arguments: list[str]):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert run.returncode == 0, run.stderr
    modules = {line.split("|")[-1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "audioldm" in modules
    assert not modules & {"torch", "numpy", "diffusers", "transformers", "requests", "PIL"}
    assert seconds < 0.5


def required(name: str, extras: tuple[str, ...] = (), seen: set[tuple[str, ...]] | None = None) -> set[str]:
    """Names of all distributions that an installed one needs here, in one spelling; its own extras are looked into."""
    from packaging.requirements import Requirement  # pytest needs it too

    seen = set() if seen is None else seen
    for line in distribution(name).requires or []:
        need = Requirement(line)
        spelt = re.sub(r"[-_.]+", "-", need.name).lower()
        if any(need.marker is None or need.marker.evaluate({"extra": e}) for e in ("", *extras)):
            key = (spelt, *sorted(need.extras))
            if key not in seen:
                seen.add(key)
                required(spelt, tuple(need.extras), seen)
    return {spelt for spelt, *_ in seen} - {NAME}


def test_constraints_pin_all_that_is_installed():
    from packaging.requirements import Requirement

    installed()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    pinned = {re.sub(r"[-_.]+", "-", pin.name).lower(): pin.specifier for pin in pins}
    assert len(pinned) == len(pins), "a name is pinned twice"
    needed = required(NAME, ("test",))
    assert {"torch", "pytest", "numpy"} <= needed
    # An extra of another package may bring in one that is not installed; only a missing pin is a fault here.
    assert not needed - set(pinned)


def test_no_path_of_one_machine_and_no_package_host():
    paths = r"(?<![\w.~-])/(?:work|root|opt)/[\w.]"
    hosts = r"(?:download\.pytorch|pythonhosted)\.org|pypi\.org/simple"
    found = []
    for path in repository_files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            hits = re.findall(f"{paths}|{hosts}", data.decode("utf-8", "replace"))
            found += [f"{path}: {hit}" for hit in hits]
    assert not found


def test_no_placeholder_and_no_conflict_is_left():
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in repository_files() if path.suffix == ".md"}
    assert Path("README.md") in texts
    assert not [path for path, text in texts.items() if re.search(r"@@[A-Z]+@@|^[<>]{7} ", text, re.MULTILINE)]


def test_the_starter_is_small():
    total = sum(p.stat().st_size for p in (ROOT / "models" / "starter").rglob("*") if p.is_file())
    assert 1e6 < total <= 60e6


def test_notice_credits_and_replaces():
    from models.recipes.notice import BEGIN, END, replaced, section

    clip = {"file": "dog/a.flac", "label": "dog", "licence": "CC-BY", "title": "bark \\xe4 ", "author": "Ann",
            "source": "https://example.org/1"}
    free = clip | {"licence": "CC0"}
    text = section([clip, clip | {"file": "dog/b.flac"}, free])
    assert text == ('1 clips: CC0 1.0, various authors\n1 recordings with their authors:\n'
                    'dog: "bark ä" by Ann, https://example.org/1, CC BY 3.0\n')
    notice = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(notice, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(KeyError):
        section([clip | {"licence": "CC-BY-NC"}])
