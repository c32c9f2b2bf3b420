"""Versions of other libraries that have known security holes are refused. S10 of the faults, its second half."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from smallmodels import floors

ROOT = Path(__file__).parents[1]


def test_s10_floors_are_the_lower_bounds_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        r.name: [s.version for s in r.specifier if s.operator == ">="]
        for r in map(Requirement, project["dependencies"])
    }
    assert {name: wanted[name] for name in floors.FLOORS} == {name: [floor] for name, floor in floors.FLOORS.items()}


def with_old(folder: Path, name: str, version: str) -> dict[str, str]:
    """An environment in which this version of a library is the one that is installed."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smallmodels", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


RECIPE = '''"""Nothing."""
from dataclasses import dataclass
from smallmodels.runs import Run

@dataclass
class Config:
    seed: int = 0

def main(config: Config, run: Run) -> None:
    raise SystemExit(9)
'''


@pytest.mark.parametrize(("name", "version"), [("torch", "2.9.1"), ("transformers", "5.3.0rc1")])
def test_s10_library_below_its_floor_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, name: str, version: str
) -> None:
    environment = with_old(tmp_path, name, version)
    (tmp_path / "recipe.py").write_text(RECIPE)
    done = run(environment, "run", str(tmp_path / "recipe.py"), "--out", str(tmp_path / "runs"))
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert f"{name} should be version {floors.FLOORS[name]} or newer" in last
    assert f"found {version}: run pip install --upgrade '{name}>={floors.FLOORS[name]}'" in last
    assert not (tmp_path / "runs").exists()
    listed = run(environment, "list")
    assert (listed.returncode, listed.stderr) == (0, "")


VERSIONS = [
    *("2.10", "2.10.0", "2.10.1", "2.9", "2.9.99", "2.11", "3", "10.0", "1!1.0", "v2.10", "2.10.0+cpu", "2.9+cu128"),
    *("2.10rc1", "2.10.0a1", "2.10.0.dev20260101", "2.10.0.dev1+git", "2.10.post1", "2.10b2", "2.10.0-rc.1"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_compared_as_pip_compares_them(version: str) -> None:
    if "!" not in version:
        assert (floors._release(version) < floors._release("2.10")) == (Version(version) < Version("2.10"))
    assert floors._release(version) >= floors._release("0.1")
