"""What may import what, what stays light, and which calls stand nowhere in the package."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import smallmodels

PACKAGE = Path(smallmodels.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_recipes" not in path.parts)
HEAVY = {"torch", "transformers", "datasets", "sklearn", "matplotlib", "codecarbon", "accelerate", "peft", "pyarrow"}

ONLY_IN = {"tyro": {"cli"}, "codecarbon": {"energy"}, "peft": {"models"}}
"""Packages that have one home: a module, or a folder of modules."""

STANDARD_LIBRARY_ONLY = {"errors", "files", "records", "configs", "folders", "memory", "privacy", "text", "__init__"}

LAYERS = [
    {"errors"},
    {"files", "text"},
    {"records", "privacy", "folders", "memory", "configs"},
    {"losses", "metrics", "energy", "sources"},
    {"phases", "environment", "values"},
    {"data"},
    {"models", "students", "baselines"},
    {"teachers", "training", "evaluation", "accounts", "progress"},
    {"figures", "pages", "report", "cards"},
    {"runs", "usage"},
    {"cli"},
    {"__main__"},
]
"""From the bottom; a module imports from its own layer and those below."""


def name_of(path: Path) -> str:
    """`data` for every module in that folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, str]]:
    """Everything a file imports, wherever it stands: top-level package, and our module if it is ours."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import in line {node.lineno}"
            ours = node.module == "smallmodels"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if ours else [str(node.module)]
        for name in names:
            package, _, rest = name.partition(".")
            found.append((package, rest.partition(".")[0]))
    return found


def test_every_module_has_a_layer():
    named = {name for layer in LAYERS for name in layer} | {"__init__"}
    assert {name_of(path) for path in MODULES} <= named


def test_imports_never_go_up():
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{name_of(path)} imports {ours}"
        for path in MODULES
        for package, ours in imports(path)
        if package == "smallmodels" and level.get(ours, -1) > level.get(name_of(path), len(LAYERS))
    ]
    assert wrong == []


def test_packages_with_one_home_are_imported_there_alone():
    wrong = [
        f"{name_of(path)} imports {package}"
        for path in MODULES
        for package, _ in imports(path)
        if package in ONLY_IN and name_of(path) not in ONLY_IN[package]
    ]
    assert wrong == []


def test_light_modules_use_the_standard_library_alone():
    wrong = [
        f"{name_of(path)} imports {package}"
        for path in MODULES
        for package, _ in imports(path)
        if name_of(path) in STANDARD_LIBRARY_ONLY and package not in {*sys.stdlib_module_names, "smallmodels"}
    ]
    assert wrong == []


def test_package_never_imports_recipes_benchmarks_or_tests():
    found = {package for path in MODULES for package, _ in imports(path)}
    assert not found & {"recipes", "benchmarks", "tests", "conftest"}


COMMAND = """
import json, resource, sys
from smallmodels import cli
code = cli.main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print()
print(json.dumps({"code": code, "modules": sorted(sys.modules), "cpu_s": used.ru_utime + used.ru_stime}))
"""


def run_fresh(*arguments: str) -> dict:
    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    sys.path.insert(0, str(Path(__file__).parent))
    from sample_records import classifier_record

    from smallmodels import records

    folder = tmp_path_factory.mktemp("run")
    records.write_record(folder, classifier_record())
    return folder


@pytest.mark.parametrize("command", ["--help", "--version", "list", "show", "report"])
def test_light_commands_do_not_import_torch(command, run_folder, tmp_path):
    more = {"show": [str(run_folder)], "report": [str(run_folder), "--out", str(tmp_path)]}.get(command, [])
    result = run_fresh(command, *more)
    assert result["code"] == 0
    allowed = {"matplotlib"} if command == "report" else set()
    assert not (HEAVY - allowed) & set(result["modules"])


def test_help_takes_less_than_half_a_second_of_cpu():
    assert min(run_fresh("--help")["cpu_s"] for _ in range(3)) < 0.5


def test_importing_the_package_imports_nothing_else():
    code = "import sys, smallmodels; print([m for m in sys.modules if m.startswith('smallmodels.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_package_runs_no_code_from_data_s6():
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
            bad = called(node) in FORBIDDEN or flags.get("shell") == "True" or flags.get("weights_only") == "False"
            bad = bad or flags.get("trust_remote_code") == "True" or flags.get("allow_pickle") == "True"
            if bad:
                wrong.append(f"{path.name}:{node.lineno} {called(node)}")
    assert wrong == []


def test_recipes_in_a_clone_are_found_beside_the_package():
    from smallmodels import cli

    folders = cli.recipe_folders()
    assert folders, "recipes should be in the wheel as smallmodels/_recipes, or beside the package in a clone"
    assert all(path.parent in folders for path in cli.shipped_recipes().values())
