"""What holds for the package as a whole: what is in the wheel, who imports whom, what no module may do."""

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import types
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import smallmodels

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "smallmodels"
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
TOOLS = sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / ".ci").glob("*.py")])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_its_recipes_and_its_licence_only(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {relative(path) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected |= {f"smallmodels/_recipes/{path.name}" for path in RECIPES}
    info = f"smallmodels-{smallmodels.__version__}.dist-info"
    assert {name for name in names if not name.startswith(f"{info}/")} == expected
    assert f"{info}/licenses/LICENSE" in names
    assert "smallmodels/py.typed" in names


def test_wheel_installs_no_package_called_recipes(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"smallmodels", f"smallmodels-{smallmodels.__version__}.dist-info"}


def test_recipes_are_found_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "smallmodels", "list"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert RECIPES
    assert [path.stem for path in RECIPES if path.stem not in done.stdout] == []


# Pins


def test_constraints_pin_every_dependency_at_a_version_that_it_accepts() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *extras["test"],
        *extras["quickstart"],
        *extras["peers"],
        *extras["eval"],
        *extras["qlora"],
        *extras["browser"],
    ]:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        assert version is not None, f"constraints.txt lacks {wanted.name}: run `make constraints`"
        assert version in wanted.specifier, f"constraints.txt has {wanted.name} {version}, pyproject.toml wants {text}"


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_documented_installs_of_the_tests_leave_out_none_of_lm_eval(path: str) -> None:
    """`eval` brings many packages, some of which are built from source, so it is no part of `test`."""
    installs = re.findall(r"pip install .*'\.\[(test[a-z,]*)\]'", (ROOT / path).read_text(encoding="utf-8"))
    assert installs
    assert all("eval" in extras.split(",") for extras in installs)


def test_constraints_pin_what_the_dependencies_need_in_turn() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if line[0] != "#"}
    missing = set()
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # this environment does not have it
            continue
        for need in map(Requirement, needs):
            if (need.marker is None or need.marker.evaluate({"extra": ""})) and not is_of_a_gpu_build(need.name):
                missing |= {canonicalize_name(need.name)} - pinned
    assert missing == set()


def is_of_a_gpu_build(name: str) -> bool:
    """Whether only the CUDA build of torch needs it; the pins were made with the CPU build."""
    return canonicalize_name(name).startswith(("nvidia-", "cuda-", "triton"))


def test_constraints_are_versions_that_every_machine_can_install() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    assert "torch==2.13.0" in lines  # without +cpu
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


# Imports


GROUPS = (
    {
        "errors",
        "files",
        "records",
        "floors",
        "folders",
        "licenses",
        "memory",
        "privacy",
        "shapes",
        "stopping",
        "sweeps",
        "text",
        "trials",
    },
    {
        "losses",
        "metrics",
        "energy",
        "checkpoints",
        "sources",
        "configs",
        "environment",
        "processes",
        "settings",
        "limits",
    },
    {"phases", "idle"},
    {"entries", "arrays", "parts", "static"},
    {"data"},
    {"models", "students", "baselines"},
    {
        "teachers",
        "training",
        "evaluation",
        "report",
        "cards",
        "accounts",
        "calibration",
        "finishing",
        "first_answer",
        "kept",
        "log",
        "progress",
        "trackers",
        "values",
        "perplexity",
        "generation",
        "rounds",
    },
    {"tasks"},
    {"runs"},
    {"distilling"},
    {"usage", "verification", "preflight", "search"},
    {"publishing", "external", "wall"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up; the first needs nothing but the standard library."""
HOMES = {
    "codecarbon": "energy/backends.py",
    "peft": "models/adapters.py",
    "tyro": "cli/flags.py",
    "lm_eval": "external.py",
    "submitit": "cli/workers.py",
}
"""Dependencies that one file alone imports."""


def module_of(path: Path) -> str:
    """`data` for smallmodels/data/splits.py: the part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported_names(path: Path) -> frozenset[str]:
    """Dotted names that a file imports anywhere, except for its type checker alone."""
    return frozenset(_imported_names(parsed(path)))


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in without_type_checking(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} should import by the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from without_type_checking(node)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def own_imports() -> dict[str, set[str]]:
    """For every part of the package, the other parts that it imports."""
    found: dict[str, set[str]] = {}
    for path in PYTHON_FILES:
        names = {name.split(".")[1] for name in imported_names(path) if name.startswith("smallmodels.")}
        found.setdefault(module_of(path), set()).update(names - {module_of(path), "__version__"})
    return found


def test_a_module_imports_from_its_own_group_and_those_above() -> None:
    rank = {name: i for i, group in enumerate(GROUPS) for name in group}
    imports = own_imports()
    assert set(imports) - set(rank) - {"__init__"} == set(), "give the new module a place in GROUPS"
    upwards = [f"{a} imports {b}" for a, names in imports.items() for b in names if rank.get(a, 0) < rank[b]]
    assert upwards == []


def test_the_lowest_modules_need_the_standard_library_only() -> None:
    for path in PYTHON_FILES:
        if module_of(path) in GROUPS[0]:
            tops = {name.split(".")[0] for name in imported_names(path)}
            assert tops - sys.stdlib_module_names == {"smallmodels"} & tops, relative(path)


@pytest.mark.parametrize("page", ["report", "cards"])
def test_pages_are_made_from_records_alone(page: str) -> None:
    arithmetic = {"metrics"}  # of several records, such as means over seeds
    assert own_imports()[page] <= GROUPS[0] | {"report", "cards"} | (arithmetic if page == "report" else set())


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = own_imports()
    done: set[str] = set()
    while ready := {name for name, needs in imports.items() if name not in done and needs <= done}:
        done |= ready
    assert set(imports) - done == set()


@pytest.mark.parametrize(("dependency", "home"), HOMES.items())
def test_a_dependency_has_one_home(dependency: str, home: str) -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PYTHON_FILES
        if any(name.split(".")[0] == dependency for name in imported_names(path))
    }
    assert importers <= {home}


def test_the_package_imports_no_recipe_benchmark_or_test() -> None:
    outside = {"recipes", "benchmarks", "tests", "conftest"} | {path.stem for path in RECIPES}
    for path in [*PYTHON_FILES, *RECIPES]:
        tops = {name.split(".")[0] for name in imported_names(path)}
        assert tops & outside == set(), relative(path)


def test_importing_the_package_imports_no_dependency() -> None:
    code = "import sys; before = set(sys.modules); import smallmodels; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == {"smallmodels"}


# S6: what no module may do


FORBIDDEN = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "builtins.eval": "runs text as code",
    "builtins.exec": "runs text as code",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "pty.spawn": "runs a shell",
    "asyncio.create_subprocess_shell": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "yaml.load": "makes any object: use safe_load",
    "yaml.unsafe_load": "makes any object",
    "yaml.full_load": "makes any object",
    "torch.load": "reads pickle: use safetensors",
    "torch.save": "writes pickle: use safetensors",
    "torch.jit.load": "reads pickle: use safetensors",
    "pandas.read_pickle": "reads pickle",
    "numpy.lib.format.read_array": "reads pickle where it is told to: use numpy.load",
    "runpy.run_path": "runs a file as code",
    "runpy.run_module": "runs a file as code",
    "code.interact": "runs text as code",
    "torch.hub.load": "runs code from a repository",
    "tempfile.mktemp": "can be raced",
}
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")
FORBIDDEN_ARGUMENTS = {
    ("shell", True): "runs a shell",
    ("weights_only", False): "reads pickle",
    ("allow_pickle", True): "reads pickle",
    ("trust_remote_code", True): "runs code of a model",
}


def offences(source: str) -> list[str]:
    """What a file does that no module may do, one line per place."""
    tree = ast.parse(source)
    aliases = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in PICKLES]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = dotted(node, aliases)
            if name in FORBIDDEN:
                found.append(f"line {node.lineno}: {name} {FORBIDDEN[name]}")
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if reason := FORBIDDEN_ARGUMENTS.get((keyword.arg, bool(value) if value is not None else None)):
                    found.append(f"line {node.lineno}: {keyword.arg}={value} {reason}")
    return found


def dotted(node: ast.AST, aliases: dict[str, str | None]) -> str | None:
    """`yaml.load` for the expression `y.load` after `import yaml as y`."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id) or node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, aliases)):
        return f"{base}.{node.attr}"
    return None


@pytest.mark.parametrize("path", [*PYTHON_FILES, *RECIPES, *TOOLS], ids=relative)
def test_s6_no_module_runs_text_reads_pickle_or_starts_a_shell(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "run = exec",
        "import builtins as b; b.exec('1')",
        "import pickle",
        "from pickle import loads as read",
        "def f():\n    import joblib",
        "import yaml as y; y.load(text)",
        "from yaml import load; load(text)",
        "import os; os.system('ls')",
        "import os.path; os.system('ls')",
        "import subprocess; subprocess.run('ls', shell=True)",
        "import torch; torch.load(path, weights_only=False)",
        "load(path, weights_only=False)",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "model(name, trust_remote_code=True)",
        "import marshal",
        "from shelve import open as look",
        "import pandas as pd; pd.read_pickle(path)",
        "subprocess.run('ls', shell=1)",
    ],
)
def test_s6_the_search_finds_what_it_looks_for(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "spec.loader.exec_module(module)",
        "re.compile('x')",
        "import yaml; yaml.safe_load(text)",
        "subprocess.run(['ls'], shell=False)",
        "model(name, trust_remote_code=False)",
        "torch.compile(model)",
    ],
)
def test_s6_the_search_leaves_ordinary_code_alone(source: str) -> None:
    assert offences(source) == []


# Docstrings and the README


def public_definitions(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))


@pytest.mark.parametrize("path", [*PYTHON_FILES, *RECIPES], ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body
    without = [f"line {node.lineno}: {node.name}" for node in public_definitions(tree) if not ast.get_docstring(node)]
    assert without == []


@pytest.mark.slow
def test_every_python_block_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", readme, re.M | re.S):
        line = readme[: block.start()].count("\n") + 1
        folder = tmp_path / f"line-{line}"
        folder.mkdir()
        script = folder / "example.py"
        script.write_text(block[1], encoding="utf-8")
        done = subprocess.run([sys.executable, script.name], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"README.md, block at line {line}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


# Hooks and CI


def load_audit() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_s10_audit_without_its_tools_says_so_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    audit = load_audit()
    absent = [name for name in ("bandit", "pip_audit") if importlib.util.find_spec(name) is None]
    assert [audit.is_absent(name) for name in absent] == [True] * len(absent)
    assert capsys.readouterr().out.count("skipped, because it is not installed") == len(absent)
    assert audit.is_absent("pytest") is False


KNOWN_AND_HARMLESS = {
    "name": "sqlitedict",
    "version": "2.1.0",
    "vulns": [{"id": "GHSA-1", "aliases": ["CVE-2024-35515"], "fix_versions": []}],
}
VULNERABLE = {"name": "torch", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.6"]}]}


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ({"dependencies": [VULNERABLE]}, 1, "torch 1.0 has CVE-1; mended in 2.6"),
        ({"dependencies": [KNOWN_AND_HARMLESS]}, 0, "0 advisories on 1 packages"),
        ({"dependencies": [{"name": "torch", "version": "3", "vulns": []}]}, 0, "0 advisories on 1 packages"),
        ({"dependencies": [{"name": "torch", "skip_reason": "not found"}]}, 0, "skipped, because the package index"),
        (None, 0, "skipped, because no list of advisories can be reached"),
    ],
)
def test_s10_audit_never_takes_an_unanswered_question_for_a_no(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Any,
    code: int,
    words: str,
) -> None:
    # In place of the tool: what it prints where advisories are found, are absent, or cannot be asked for.
    (tmp_path / "pip_audit.py").write_text(f"print({json.dumps(answer)!r} if {answer is not None} else '')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert load_audit().audit_pins() == code
    assert words in capsys.readouterr().out


def test_s10_check_and_ci_run_the_audit() -> None:
    assert re.search(r"^check:.* audit", (ROOT / "Makefile").read_text(), re.M)
    assert ".ci/audit.py" in (ROOT / ".ci" / "run").read_text()


def test_hooks_need_no_network() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert {hook["language"] for repo in config["repos"] for hook in repo["hooks"]} == {"system"}
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_hook_refuses_large_files(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"0" * 1_000_000)
    (tmp_path / "large").write_bytes(b"0" * 1_000_001)
    command = [sys.executable, str(ROOT / ".ci" / "large_files.py"), str(tmp_path / "small")]
    assert subprocess.run(command, timeout=60).returncode == 0
    done = subprocess.run([*command, str(tmp_path / "large")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "large should be at most 1,000,000 bytes" in done.stdout
