"""What stays light: commands that show things start without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "datasets", "sklearn", "matplotlib", "codecarbon", "accelerate", "peft", "pyarrow"}

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


@pytest.mark.parametrize("command", ["--help", "--version", "list", "show", "compare", "report"])
def test_light_commands_do_not_import_torch(command, run_folder, tmp_path):
    run = str(run_folder)
    more = {"show": [run], "compare": [run], "report": [run, "--out", str(tmp_path)]}.get(command, [])
    result = run_fresh(command, *more)
    assert result["code"] == 0
    allowed = {"matplotlib"} if command == "report" else set()
    assert not (HEAVY - allowed) & set(result["modules"])


def test_help_takes_less_than_half_a_second_of_cpu():
    assert min(run_fresh("--help")["cpu_s"] for _ in range(3)) < 0.5


def test_recipes_in_a_clone_are_found_beside_the_package():
    from smallmodels import cli

    folders = cli.recipe_folders()
    assert folders, "recipes should be in the wheel as smallmodels/_recipes, or beside the package in a clone"
    assert all(path.parent in folders for path in cli.shipped_recipes().values())
