"""Sweeps: which cells in which order, what is refused before the first, and what a stop or a kill leaves to be done."""

import contextlib
import csv
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sample_records import classifier_record
from test_imports import HEAVY, run_fresh
from test_runs import finish, metric, result

from smallmodels import cli, energy, entries, files, folders, records, settings, sweeps
from smallmodels.cli import cells, forecasts, gathering, sweep, workers
from smallmodels.cli.flags import parse_flags
from smallmodels.cli.request import read_request
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, TrainingError
from smallmodels.runs import Run
from smallmodels.sweeps import Cell, Sweep

ROOT = Path(__file__).parents[1]

RECIPE = '''
    """Does what files in the working folder tell it; needs no torch."""
    import time
    from dataclasses import dataclass
    from pathlib import Path

    from smallmodels import records
    from smallmodels.errors import RunInterruptedError, TrainingError

    @dataclass(frozen=True, kw_only=True)
    class TrainConfig:
        learning_rate: float = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        temperature: float = 2.0
        """Softens; > 0."""
        dropout: bool = True
        layers: tuple[int, ...] = (0, 2)
        name: str | None = None
        teacher: str | None = None
        seed: int = 0
        margin: float = 0.5
        train: TrainConfig = TrainConfig()

        def __post_init__(self):
            if self.temperature <= 0:
                raise ValueError(f"temperature must be > 0, got {self.temperature}")

    class Student:
        def save(self, folder):
            (folder / "weights.bin").write_bytes(b"w")

    def train(config, context):
        me = f"{Path(__file__).stem}{config.seed}"
        Path(f"began-{me}").touch()
        while Path(f"hold-{me}").exists():
            time.sleep(0.02)
            if context.should_stop():
                raise RunInterruptedError("training stopped, has saved its work, and can resume")
        if Path(f"fail-{me}").exists():
            raise TrainingError("the loss must be finite, but is not: lower the learning rate")
        return 1

    def main(config, run):
        run.phase("train", train, config)
        found = records.Metric(value=0.5 + config.seed / 10, low=0.4, high=0.9, n=10)
        result = records.Result(role="student", split="test", metrics={"accuracy": found, "macro_f1": found},
                                per_class=[], agreement=None, calibration_error=None, built_by=["train"],
                                teacher_phases=[])
        run.finish(Student(), title="A toy", task="text-classification", metric="accuracy", margin=config.margin,
                   results=[result], curve=[records.CurvePoint(step=1, energy_j=1.0, cpu_s=1.0, value=0.4)])
'''
DECLARED = records.Declaration(sweep_id="s-1", metric="accuracy", margin=0.01)


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Path:
    """A working folder with the recipes `a` and `b`, and a sweep of them over two seeds."""
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "benchmarks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        (tmp_path / "recipes" / f"{name}.py").write_text(textwrap.dedent(RECIPE))
    write_sweep(tmp_path)
    return tmp_path


def write_sweep(
    folder: Path, *, recipes=("recipes/a.py", "recipes/b.py"), axes=None, more: str = "margin=0.01"
) -> None:
    axes = {"seed": (0, 1)} if axes is None else axes
    text = f"Sweep(recipes={recipes!r}, axes={axes!r}, metric='accuracy', {more})"
    (folder / "benchmarks" / "pair.py").write_text(f"from smallmodels.sweeps import Sweep\nSWEEP = {text}\n")


def run_cell(bench: Path, name: str, declared: records.Declaration = DECLARED, **config) -> Path:
    """A run of a cell of the sweep without the sweep."""
    out, recipe = bench / "runs/sweeps/pair", cli.load_recipe(f"recipes/{name[0]}.py")
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "sweep.json", records.to_json(declared))
    folder = out / name / recipe.name / "20260301T000000Z-s0"
    with contextlib.suppress(TrainingError), Run(folder, meter="none", sweep=declared) as run:
        recipe.main(recipe.Config(**config), run)
    return folder


def refuse(capfd, *arguments: str, code: int = 2) -> str:
    """The one sentence of a refusal, which may be that of a child; no run was begun."""
    assert cli.main(["sweep", "benchmarks/pair.py", *arguments]) == code
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("smallmodels: ")]
    assert len(lines) == 1
    assert "Running cell" not in captured.out
    return lines[0].removeprefix("smallmodels: ")


# Cells


def names(found: Sweep) -> list[str]:
    return [" ".join([cell.name, *cell.settings]) for cell in found.cells()]


def test_cells_alternate_between_recipes_and_turn_round_every_time():
    found = Sweep(recipes=("a", "x/b.py", "c"), axes={"seed": (0, 1, 2)}, metric="accuracy", margin=0.0)
    by_round = ["a 0", "b 0", "c 0", "c 1", "b 1", "a 1", "a 2", "b 2", "c 2"]
    assert names(found) == [text.replace(" ", " seed=") for text in by_round]
    blocks = dataclasses.replace(found, order="blocks")
    assert names(blocks) == sorted(names(found))


def test_cells_take_every_combination_with_one_seed_before_the_next_and_else_the_last_axis_changes_first():
    axes = {"temperature": (1.0, 2.0), "seed": (1, 0), "rank": (4, 8)}
    found = Sweep(recipes=("a",), axes=axes, metric="accuracy", margin=0.0)
    expected = [f"a temperature={t} seed={s} rank={r}" for s in (1, 0) for t in (1.0, 2.0) for r in (4, 8)]
    assert names(found) == expected
    assert names(dataclasses.replace(found, order="blocks")) == sorted(expected, key=lambda name: name[:15])
    assert names(dataclasses.replace(found, axes={})) == ["a"]


def test_sweeps_of_one_recipe_run_seed_by_seed_and_the_others_one_after_the_other(bench):
    def of(*recipes, seeds=(0, 1), order="alternate"):
        axes = {"seed": seeds, "temperature": (1.0, 2.0)} if order == "blocks" else {"seed": seeds}
        return Sweep(recipes=recipes, axes=axes, metric="accuracy", margin=0.0, order=order)

    found = {"x": of("a"), "pair": of("b", "c"), "y": of("d", seeds=(5, 6, 7)), "rows": of("e", order="blocks")}
    said = [f"{name} {cell.name}{cell.values['seed']}" for name, cell in sweeps.in_turn(found)]
    together = ["x a0", "y d5", "y d6", "x a1", "y d7"]
    contest, rows = ["pair b0", "pair c0", "pair c1", "pair b1"], ["rows e0", "rows e0", "rows e1", "rows e1"]
    assert said == [*together, *contest, *rows]
    one = "Sweep(recipes=('recipes/a.py',), axes={'seed': (0, 1)}, metric='accuracy', margin=0.01)"
    text = f"from smallmodels.sweeps import Sweep\nSWEEPS = {{'first': {one}, 'second': {one}}}\n"
    (bench / "benchmarks" / "pair.py").write_text(text)
    file = Path("benchmarks/pair.py")
    jobs = sweep._jobs(sweep.load_sweeps(file), (), file, Path("out"))
    assert [(job.name, job.cell.values["seed"]) for job in jobs] == [
        *(("first", 0), ("second", 0), ("second", 1), ("first", 1))
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipes": ()}, "recipes of a sweep should be a tuple of one or more"),
        ({"recipes": "recipes/a.py"}, "recipes of a sweep should be a tuple of one or more, got 'recipes/a.py'"),
        ({"recipes": ("recipes/a.py", "peers/a.py")}, "a,seed=0 is there twice"),
        ({"axes": {"seed": 1}}, "axis seed of a sweep should be a tuple of one or more, got 1"),
        ({"axes": {"seed": ()}}, "axis seed"),
        ({"axes": {"seed": (0, 1, 0)}}, "a,seed=0 is there twice"),
        ({"metric": ""}, "metric of a sweep must be the name of one, got ''"),
        ({"margin": -0.1}, "margin of a sweep must be >= 0, got -0.1"),
        ({"margin": float("nan")}, "margin of a sweep must be >= 0, got nan"),
        ({"order": "random"}, "order of a sweep must be alternate or blocks, got random"),
    ],
)
def test_sweep_that_makes_no_sense_is_refused(changes, sentence):
    values = {"recipes": ("recipes/a.py",), "axes": {"seed": (0, 1)}, "metric": "accuracy", "margin": 0.01}
    with pytest.raises(InputError) as refused:
        Sweep(**(values | changes))
    assert sentence in str(refused.value)


def test_flags_of_a_cell_give_its_values_back(bench):
    recipe = cli.load_recipe("recipes/a.py")
    values = {"temperature": 0.25, "dropout": False, "layers": (1, 3), "name": None, "learning_rate": -3e-05}
    changes, _ = parse_flags(recipe, Cell("a", values).flags)
    paths = [("temperature",), ("dropout",), ("layers",), ("name",), ("train", "learning_rate")]
    assert changes == dict(zip(paths, values.values(), strict=True))
    config = cells._config(recipe, records.to_json(values), Cell("a", values).flags)
    assert (config.layers, config.train.learning_rate, config.seed) == ((1, 3), -3e-05, 0)


def test_long_folder_name_keeps_the_axes_that_change_most():
    long = {"dataset": "x" * 500, "num_layers": 2, "seed": 1}
    assert Cell("a", long).folder_name.endswith(",num_layers=2,seed=1")
    assert Cell("a", long).folder_name != Cell("a", long | {"dataset": "x" * 501}).folder_name


def test_folder_name_is_readable_and_never_shared_or_too_long():
    assert Cell("recipes/a.py", {"temperature": 1.0, "layers": (0, 2)}).folder_name == "a,temperature=1.0,layers=0+2"
    odd = [Cell("a", {"dataset": value}).folder_name for value in ("x/y z", "x_y_z", "x" * 500, "x" * 501, "../é")]
    assert odd[0].startswith("a,dataset=x_y_z~")
    assert len(set(odd)) == len(odd)
    assert max(map(len, odd)) < 140
    assert not any(set("/ é") & set(name) for name in odd)


# What is checked before the first run


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temperatur": 1.0}, "the axis temperatur should be a setting of a, but is none: did you mean temperature?"),
        ({"zzz": 1.0}, "the axis zzz should be a setting of a, but is none: `smallmodels run recipes/a.py --help`"),
        ({"device": "cpu"}, "the axis device should be a setting of a, but is none"),
        ({"inference_protocol": "smoke"}, "--inference-protocol should be one of indicative, full, got smoke"),
        ({"temperature": "2.0"}, 'the axis temperature should be a number for a, got "2.0"'),
        ({"seed": "x"}, "a cannot run with seed x: --seed should be a whole number, got x"),
        ({"seed": 1.5}, "a cannot run with seed 1.5: --seed should be a whole number, got 1.5"),
        ({"seed": True}, "a cannot run with seed True: --seed should be a whole number, got nothing"),
        ({"name": "None"}, 'the axis name should be text or none for a, got "None"'),
        ({"seed": 1, "temperature": -1.0}, "a cannot run with seed 1, temperature -1.0: temperature must be > 0"),
        ({"temperature": float("inf")}, "a cannot run with temperature inf: --temperature must be a finite number"),
    ],
)
def test_cell_that_does_not_fit_its_recipe_is_refused_by_recipe_and_axis(bench, values, sentence):
    with pytest.raises(InputError) as refused:
        cells._config(cli.load_recipe("recipes/a.py"), values, Cell("a", values).flags)
    assert sentence in str(refused.value)


def test_sweep_may_accept_licences_for_its_runs(bench):
    values = {"seed": 1, "accept_license": ["cc-by-nc-4.0"]}
    config = cells._config(cli.load_recipe("recipes/a.py"), values, Cell("a", values).flags)
    assert config.seed == 1
    with pytest.raises(InputError, match="the axis accept_license should be"):
        cells._config(
            cli.load_recipe("recipes/a.py"), {"accept_license": "x"}, Cell("a", {"accept_license": "x"}).flags
        )


def test_protocol_of_inference_is_an_axis_though_no_setting_of_a_recipe(bench):
    values = {"inference_protocol": "full", "seed": 1}
    cell = Cell("a", values)
    assert cells._config(cli.load_recipe("recipes/a.py"), values, cell.flags).seed == 1
    assert read_request(["recipes/a.py", *cell.flags], None).options.inference_protocol == "full"


def sweep_of_the_readme() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S) if "SWEEP = " in b)
    return block


def test_sweep_of_the_readme_has_cells_that_fit_their_recipe_and_share_a_teacher(tmp_path):
    (tmp_path / "layers.py").write_text(sweep_of_the_readme())
    (found,) = sweep.load_sweeps(tmp_path / "layers.py").values()
    recipe = cli.load_recipe("distill_text_classifier")
    configs = [cells._config(recipe, records.to_json(cell.values), cell.flags) for cell in found.cells()]
    assert len({(c.num_layers, c.temperature, c.seed) for c in configs}) == len(configs) == 12
    about = {"name": "layers", "sweep": found, "recipe": recipe.path, "folder": tmp_path}
    jobs = [
        sweep.Job(cell=cell, config=records.to_json(config), **about)
        for cell, config in zip(found.cells(), configs, strict=True)
    ]
    assert len({job.teacher for job in jobs}) == 1
    assert None not in {job.teacher for job in jobs}


@pytest.mark.slow
@pytest.mark.hub
def test_sweep_of_the_readme_ends_in_a_page_that_says_which_model_to_ship(hub, hub_home, tiny_model_folder, tmp_path):
    # the same data and both axes, with a teacher of four narrow layers that hardly learns
    small = {"teacher": (str(tiny_model_folder),), "max_length": (32,), "num_epochs": (1,)}
    small["teacher_train.num_epochs"] = (1,)
    changed = f"SWEEP = dataclasses.replace(SWEEP, axes={{**SWEEP.axes, **{small!r}}})"
    (tmp_path / "layers.py").write_text(f"import dataclasses\n{sweep_of_the_readme()}\n{changed}\n")
    environment = hub.environment(hub_home, PYTHONPATH=str(ROOT), SMALLMODELS_CACHE=str(tmp_path / "cache"))
    said = []
    for words in (["sweep", "layers.py"], ["report", "runs/sweeps/layers", "--out", "page"]):
        command = [sys.executable, "-m", "smallmodels", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout)
    assert "12 of 12 cells are done" in said[0]

    found = sweeps.read(tmp_path / "runs")
    assert [record.config["seed"] for record in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert [record.phase("teacher").shared_cpu_s == 0 for record in found] == [True, *[False] * 11]  # the first paid
    assert {(record.sweep_id, record.margin) for record in found} == {(found[0].sweep_id, 0.01)}
    assert all(record.energy_j and record.energy_label for record in found)

    answer = (tmp_path / "page" / "report.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    shipped = re.search(r"Do not distil: (TF-IDF|the majority class) is within the margin .*: ship that\.", answer)
    assert shipped, answer[:1000]
    assert shipped[1] in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    role = {"TF-IDF": "tfidf", "the majority class": "majority"}[shipped[1]]
    assert mean_accuracy(tmp_path / "page", role) >= mean_accuracy(tmp_path / "page", "teacher") - 0.01


def mean_accuracy(page: Path, role: str) -> float:
    """Of a role in all runs, as the page's table for other programs says it."""
    with (page / "results.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["role"], row["metric"]) == (role, "accuracy")]
    values = [float(row["value"]) for row in rows if row["split"] == "test"]
    assert len(values) == 12
    return sum(values) / len(values)


def test_unknown_axis_stops_the_sweep_before_anything_runs(bench, capfd):
    write_sweep(bench, axes={"seed": (0,), "sede": (1,)})
    assert refuse(capfd) == "the axis sede should be a setting of a, but is none: did you mean seed?"
    assert not (bench / "runs").exists()


def test_recipes_are_shipped_ones_by_name_or_files_beside_the_folder_of_the_sweep(bench):
    file = Path("benchmarks/pair.py")
    assert sweep._recipe_file("quickstart", file) == cli.find_recipe("quickstart")
    for name in ("recipes/a.py", str(bench / "recipes" / "a.py")):
        assert sweep._recipe_file(name, file) == bench / "recipes" / "a.py"
    with pytest.raises(InputError, match=r"there is no recipe file .*benchmarks/a\.py"):
        sweep._recipe_file("benchmarks/a.py", file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x = 1", "should define SWEEP = Sweep(…), or SWEEPS"),
        ("SWEEP = {'recipes': ()}", "should define SWEEP = Sweep(…), or SWEEPS"),
        ("SWEEPS = {}", "should define SWEEP = Sweep(…), or SWEEPS"),
        ("x = (", "pair.py should be Python, but line 1 is not"),
        (
            "from smallmodels.sweeps import Sweep\n"
            "SWEEPS = {'../up': Sweep(recipes=('recipes/a.py',), axes={}, metric='accuracy', margin=0)}",
            "the name of a sweep should be letters, digits and . _ - alone, got '../up'",
        ),
        (
            "from smallmodels.sweeps import Sweep\n"
            "SWEEP = Sweep(recipes=('recipes/c.py',), axes={}, metric='accuracy', margin=0)",
            "there is no recipe file",
        ),
    ],
)
def test_file_that_holds_no_sweep_is_refused(bench, capfd, content, sentence):
    (bench / "benchmarks" / "pair.py").write_text(content)
    assert sentence in refuse(capfd, "--dry-run")


def test_dry_run_lists_the_cells_in_80_columns_and_writes_nothing_and_imports_no_torch(bench, capfd, monkeypatch):
    write_sweep(bench, axes={"seed": (0, 1), "temperature": (1.0, 2.5), "learning_rate": (0.001,), "layers": ((0, 1),)})
    found = run_fresh("sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast")
    assert found["code"] == 0
    assert not HEAVY & set(found["modules"])
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast"]) == 0
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("to run" in line for line in lines) == 8
    assert lines[-2:] == ["0 of 8 cells are done, in", "runs/sweeps/pair"]
    assert not (bench / "runs").exists()
    assert "which is code" in captured.err


def test_only_takes_sweeps_by_name(bench, capfd):
    one = "Sweep(recipes=('recipes/a.py',), axes={'seed': (0,)}, metric='accuracy', margin=0.01)"
    text = f"from smallmodels.sweeps import Sweep\nSWEEPS = {{'first': {one}, 'second': {one}, 'third': {one}}}\n"
    (bench / "benchmarks" / "pair.py").write_text(text)
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast", "--only", "first", "third"]) == 0
    out = capfd.readouterr().out
    assert [name in out for name in ("first", "second", "third")] == [True, False, True]
    assert "pair has no sweep 'frist'" not in (sentence := refuse(capfd, "--only", "frist"))
    assert "has no sweep 'frist': did you mean first?" in sentence


def test_metric_that_a_recipe_does_not_have_is_refused_before_the_first_cell_runs(bench, capfd):
    recipe = textwrap.dedent(RECIPE)
    (bench / "recipes" / "a.py").write_text(recipe + '\nMETRICS = ("macro_f1", "acuracy")\n')
    sentence = "the sweep ranks by accuracy, but a has macro_f1, acuracy: did you mean acuracy?"
    write_sweep(bench, recipes=("recipes/a.py",), axes={"seed": (0,)})
    assert refuse(capfd) == sentence
    assert not (bench / "runs").exists()
    (bench / "recipes" / "a.py").write_text(recipe + '\nMETRICS = ("accuracy")\n')
    assert refuse(capfd).endswith("""should be a tuple of names, such as ("accuracy",), got 'accuracy'""")
    (bench / "recipes" / "a.py").write_text(recipe + '\nMETRICS = ("macro_f1", "accuracy")\n')
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast"]) == 0


def test_cell_whose_data_cannot_be_had_is_refused_before_the_first_runs(bench, capfd):
    recipe = textwrap.dedent(RECIPE).replace(
        "    run.phase(", "    run.pin((config.name or '.', 'dataset'))\n    run.phase(", 1
    )
    (bench / "recipes" / "a.py").write_text(recipe)
    write_sweep(bench, recipes=("recipes/a.py",), axes={"name": (None, "nobody/nothing"), "seed": (0,)})
    assert refuse(capfd).startswith("a cannot run with name nobody/nothing, seed 0: HF_HUB_OFFLINE is set")
    assert not (bench / "runs").exists()


# What cells take, before they run


@pytest.mark.slow
def test_dry_run_foretells_by_one_trial_of_a_config_or_by_its_records(bench, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    write_sweep(bench, recipes=("recipes/a.py",), axes={"temperature": (1.0, 2.0), "seed": (0, 1)})
    done = run_cell(bench, "a,temperature=1.0,seed=0", temperature=1.0)
    capfd.readouterr()
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run"]) == 0
    shown = capfd.readouterr().out.splitlines()
    rows = [" ".join(line.split()).split() for line in shown if " seed=" in line]
    assert [(row[2], row[-1]) for row in rows] == [
        *(("seed=0", "done"), ("seed=0", "trial"), ("seed=1", "record"), ("seed=1", "trial"))
    ]
    assert any(line.startswith("3 cells take about ") and " of disk." in line for line in shown)
    assert [path.parent for path in (bench / "runs").rglob("record.json")] == [done]
    assert sorted(path.name for path in bench.glob("began-*")) == ["began-a0"]  # both trials ran it, with seed 0


def test_forecast_from_records_is_their_mean_and_says_how_many(tmp_path):
    records_of = [classifier_record(duration_s=s, energy_j=j) for s, j in ((10.0, 100.0), (20.0, 300.0))]
    found = forecasts.from_records([(tmp_path, record) for record in records_of])
    assert (found.duration_s, found.low_s, found.high_s, found.energy_j) == (15.0, 10.0, 20.0, 200.0)
    assert found.source == "2 records"
    unknown = dataclasses.replace(records_of[0], energy_j=None)
    assert forecasts.from_records([(tmp_path, records_of[0]), (tmp_path, unknown)]).energy_j is None


def cell_forecast(*shared: forecasts.Shared, **changes) -> forecasts.CellForecast:
    """100 s, 1,000 J, and 50 MB of which 20 MB stay."""
    about = {"duration_s": 100.0, "low_s": 80.0, "high_s": 125.0, "energy_j": 1000.0, "label": "counter"}
    about |= {"disk_bytes": 50_000_000, "kept_bytes": 20_000_000, "source": "trial"}
    return forecasts.CellForecast(**(about | changes), shared=shared)


def test_what_cells_share_is_counted_for_the_first_that_needs_it():
    teacher = forecasts.Shared("teacher", 40.0, 400.0, 7_000_000)
    signal, other = (forecasts.Shared(name, 10.0, 100.0, 1_000_000) for name in ("signal", "other"))
    alone = [cell_forecast(teacher, signal), cell_forecast(teacher, other), cell_forecast(teacher, signal)]
    cells = forecasts.one_after_the_other(alone)
    assert [cell.duration_s for cell in cells] == [100.0, 60.0, 50.0]
    assert [cell.energy_j for cell in cells] == [1000.0, 600.0, 500.0]
    assert [(cell.low_s, cell.high_s) for cell in cells] == [(80.0, 125.0), (48.0, 75.0), (40.0, 62.5)]
    whole = forecasts.total(cells)
    assert (whole.duration_s, whole.low_s, whole.high_s, whole.energy_j) == (210.0, 168.0, 262.5, 2100.0)
    assert whole.spared_s == sum(cell.duration_s for cell in alone) - 210.0
    assert whole.disk_bytes == 2 * 20_000_000 + 50_000_000 + 7_000_000 + 2 * 1_000_000
    assert whole.is_counted


def test_total_of_cells_without_joules_has_none_and_of_cells_that_share_nothing_is_their_sum():
    unknown = forecasts.Shared("signal", 10.0, None, 1)
    alone = [cell_forecast(unknown, energy_j=None), cell_forecast(unknown, energy_j=None)]
    assert forecasts.total(forecasts.one_after_the_other(alone)).energy_j is None
    whole = forecasts.total(forecasts.one_after_the_other([cell_forecast(label="modelled"), cell_forecast()]))
    assert (whole.duration_s, whole.spared_s, whole.is_counted) == (200.0, 0.0, False)


def test_forecast_from_records_leaves_out_what_a_run_paid_for_the_cache_as_long_as_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    phase, entry = tmp_path / "run" / "phases" / "teacher", tmp_path / "cache" / "fine-tuned-teacher" / "abc"
    for folder in (phase, entry):
        folder.mkdir(parents=True)
    files.write_json(phase / "payer.json", "me")
    spent = energy.EnergyReading(4.0, 8.0, {"cpu": records.Component(energy_j=30.0, label="counter")})
    parts = [entries.Part(payer, energy.EnergyReading(), spent, {"num_examples": 1}) for payer in ("me", "other")]
    files.write_json(entry / "entry.json", {"parts": [dataclasses.asdict(part) for part in parts]})
    done = [(tmp_path / "run", classifier_record(duration_s=10.0, energy_j=100.0))]
    assert (found := forecasts.from_records(done)).duration_s == 6.0
    assert found.energy_j == 70.0
    (entry / "entry.json").unlink()
    assert forecasts.from_records(done).duration_s == 10.0


def test_configs_that_differ_in_the_seed_alone_have_one_key():
    key = forecasts.config_key(Path("a.py"), {"temperature": 1.0, "seed": 0})
    assert key == forecasts.config_key(Path("a.py"), {"temperature": 1.0, "seed": 1})
    assert key != forecasts.config_key(Path("a.py"), {"temperature": 2.0, "seed": 0})
    assert key != forecasts.config_key(Path("b.py"), {"temperature": 1.0, "seed": 0})
    full = {"inference_protocol": "full"}
    assert key != forecasts.config_key(Path("a.py"), {"temperature": 1.0, "seed": 0}, full)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--no-forecast"], "--no-forecast is about what --dry-run says"),
        (["--worker-options", "timeout_min=1"], "--worker-options are for workers"),
        (["--workers", "submitit-local", "--dry-run"], "--dry-run runs nothing, so it needs no --workers"),
    ],
)
def test_flags_of_a_sweep_that_would_be_ignored_are_refused(bench, capfd, words, sentence):
    assert sentence in refuse(capfd, *words)


# What runs cost that left no record


def test_runs_without_a_record_are_in_the_account_of_their_sweep(bench):
    (bench / "fail-a0").touch()
    failed = run_cell(bench, "a,seed=0")
    run_cell(bench, "a,seed=1", seed=1)
    (run,) = gathering.unfinished_runs(bench / "runs")
    assert (run.run_id, run.recipe, run.sweep_id) == (settings.read(failed)["run_id"], "a", DECLARED.sweep_id)
    assert run.cpu_s > 0
    assert run.energy_j is None  # nothing measured it
    (bench / "fail-a0").unlink()
    recipe = cli.load_recipe("recipes/a.py")
    with Run(failed, meter="none", resume=True) as resumed:
        recipe.main(recipe.Config(), resumed)
    assert gathering.unfinished_runs(bench / "runs") == []


def test_run_without_a_record_counts_where_its_files_are_gone_or_damaged(bench, capsys):
    (bench / "fail-a0").touch()
    failed = run_cell(bench, "a,seed=0")
    complete = run_cell(bench, "a,seed=1", seed=1)
    (complete / "model").mkdir(exist_ok=True)
    (complete / "model" / "config.json").write_text('{"model_type": "bert"}')  # of a model, so of no run
    (journal := failed / "journal.jsonl").write_bytes(b'{"seq": 0, "segment": 1, "kind": "open"}\n')
    (run,) = gathering.unfinished_runs(bench / "runs")
    assert (run.run_id, run.cpu_s, run.energy_j) == (settings.read(failed)["run_id"], None, None)  # not 0: not known
    (failed / "config.json").write_text("{")
    (run,) = gathering.unfinished_runs(bench / "runs")
    assert (run.run_id, run.recipe, run.cpu_s) == (failed.name, "a", None)
    assert cli.main(["compare", str(bench / "runs")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What never ended" in out
    journal.unlink()  # and now nothing tells that this was a run
    assert gathering.unfinished_runs(bench / "runs") == []


def test_run_without_a_record_is_kept_with_the_others_until_it_has_one(bench):
    (bench / "fail-a0").touch()
    failed = run_cell(bench, "a,seed=0")
    run_cell(bench, "a,seed=1", seed=1)
    smoke = bench / "runs" / "smoke"
    smoke.mkdir()
    files.write_json(smoke / "config.json", {"run_id": "smoke", "recipe": "a", "smoke": True})
    own = gathering.unfinished_runs(bench / "runs")

    def keep(folder: str = "runs") -> None:
        gathering.keep_all(
            bench / folder,
            bench / "results",
            lambda record, _: f"s/{record.run_id}",
            lambda run: f"s/{run.run_id}" if run.sweep_id == DECLARED.sweep_id else None,
        )

    keep()
    (file,) = (bench / "results").rglob("unfinished.json")
    assert str(bench) not in file.read_text()
    assert gathering.unfinished_runs(bench / "results") == own != []
    for path in ("results", "results/s"):
        found, evidence = gathering.gather([str(bench / path)])
        assert ([record.config["seed"] for record in found], evidence.unfinished) == ([1], own)
    with pytest.raises(InputError, match="at least one run should be complete"):
        gathering.gather([str(file.parent)])
    (bench / "fail-a0").unlink()
    recipe = cli.load_recipe("recipes/a.py")
    with Run(failed, meter="none", resume=True) as resumed:
        recipe.main(recipe.Config(), resumed)
    keep()
    assert gathering.unfinished_runs(bench / "results") == []
    assert len(sweeps.read(bench / "results")) == 2
    (bench / "results" / "s" / "torn").mkdir()
    (bench / "results" / "s" / "torn" / "unfinished.json").write_text('{"run_id": 1}')
    with pytest.raises(DamagedError, match=r"torn/unfinished\.json: "):
        gathering.gather([str(bench / "results")])


def test_which_cells_shared_a_machine_is_kept_with_a_run(bench):
    runs = [run_cell(bench, "a,seed=0"), run_cell(bench, "a,seed=1", seed=1)]
    for run in runs:
        note = stay(run.parent.parent.name, "n", "0", None)
        files.write_json(run.parent.parent / "stay-0.json", records.to_json(note))
    name_of = {run: f"s/{number}" for number, run in enumerate(runs)}
    gathering.keep_all(bench / "runs", bench / "results", lambda _, run: name_of[run], lambda _: None)
    for folder in ("runs", "results"):
        found, evidence = gathering.gather([str(bench / folder)])
        assert [evidence.beside[record.run_id] for record in found] == [["a,seed=1"], ["a,seed=0"]]


@pytest.mark.slow
def test_failed_run_stays_in_the_account_until_it_is_complete(bench, capfd):
    write_sweep(bench, recipes=("recipes/a.py",))
    (bench / "fail-a0").touch()
    assert cli.main(["sweep", "benchmarks/pair.py"]) == 1
    (failed,) = gathering.unfinished_runs(Path("runs"))
    assert failed.recipe == "a"
    assert failed.cpu_s > 0
    assert failed.energy_j is not None
    assert "Runs without a record: 1, with " in capfd.readouterr().out
    assert [record.config["seed"] for record in sweeps.read("runs")] == [1]
    (bench / "recipes" / "a.py").write_text(textwrap.dedent(RECIPE) + "\n# mended, so a new run takes its place\n")
    (bench / "fail-a0").unlink()
    assert cli.main(["sweep", "benchmarks/pair.py"]) == 0
    assert gathering.unfinished_runs(Path("runs")) == [failed]
    (folder,) = [path.parent for path in Path("runs").rglob("config.json") if failed.run_id in path.read_text()]
    shutil.rmtree(folder)
    assert cli.main(["sweep", "benchmarks/pair.py"]) == 0
    assert gathering.unfinished_runs(Path("runs")) == []


# Workers


def stay(cell: str, node: str, start: str, end: str | None) -> sweeps.Stay:
    return sweeps.Stay(cell=cell, node=node, owns_energy=True, started_utc=start, ended_utc=end)


def test_cells_shared_a_machine_where_their_times_overlap_on_it():
    stays = [
        stay("a", "n", "10", "20"),
        stay("b", "n", "19", "30"),
        stay("c", "n", "30", "40"),
        stay("d", "m", "10", None),
    ]
    assert sweeps.shared_nodes(stays) == {"a": ["b"], "b": ["a"]}
    killed = stay("e", "n", "05", None)
    assert sweeps.shared_nodes([*stays, killed])["c"] == ["e"]


def test_worker_passes_the_exit_code_and_the_second_on_a_machine_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    code = "import os; print(os.environ.get('SMALLMODELS_ENERGY_OWNER'), file=open('owner', 'w')); raise SystemExit(5)"
    monkeypatch.chdir(tmp_path)
    with workers._owning_energy() as owner:
        assert owner is None
        assert workers.run_cell([sys.executable, "-c", code], tmp_path / "one") == 5
    assert Path("owner").read_text() == f"sweep:{os.getpid()}\n"
    assert workers.run_cell([sys.executable, "-c", code], tmp_path / "two") == 5
    assert Path("owner").read_text() == "None\n"
    stays = {found.cell: found for found in sweeps.read_stays(tmp_path)}
    assert [stays[name].owns_energy for name in ("one", "two")] == [False, True]
    assert all(found.ended_utc for found in stays.values())


@pytest.mark.slow
def test_workers_run_cells_at_once_and_mark_that_they_shared_a_machine(bench, capfd):
    pytest.importorskip("submitit")
    write_sweep(bench, axes={"seed": (0,)})
    names = ("a0", "b0")
    for name in ("fail-b0", *(f"hold-{name}" for name in names)):
        (bench / name).touch()

    def let_go_once_both_have_begun():
        for name in names:
            wait_for(bench / f"began-{name}")
        for name in names:
            (bench / f"hold-{name}").unlink()

    thread = threading.Thread(target=let_go_once_both_have_begun)
    thread.start()
    assert cli.main(["sweep", "benchmarks/pair.py", "--workers", "submitit-local"]) == 1
    thread.join()
    out = capfd.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines() if " seed=" in line]
    assert rows[0].startswith("a seed=0 ran ")
    assert rows[1] == "b seed=0 failed, exit 1 –"
    assert "2 cells shared a machine with others" in out, sweeps.read_stays(bench / "runs/sweeps/pair")
    stays = sweeps.read_stays(bench / "runs/sweeps/pair")
    assert sorted(found.owns_energy for found in stays) == [False, True]


def job(seed: int, config: dict | None, record: records.RunRecord | None = None) -> sweep.Job:
    found = Sweep(recipes=("recipes/a.py",), axes={"seed": (0, 1, 2)}, metric="accuracy", margin=0.0)
    about = {"name": "pair", "sweep": found, "recipe": Path("a.py"), "folder": Path("out")}
    return sweep.Job(cell=Cell("a", {"seed": seed}), config=config, record=record, **about)


def test_one_cell_of_each_teacher_goes_to_a_worker_before_the_others_of_it():
    x = [job(seed, {"teacher": "x", "teacher_seed": 0, "temperature": 1.0 + seed, "seed": seed}) for seed in range(3)]
    y = job(0, {"teacher": "x", "teacher_seed": 1, "temperature": 1.0, "seed": 0})
    alone = [job(seed, {"teacher": None, "seed": seed}) for seed in (0, 1)]
    every = [*x, y, *alone]
    assert sweep._that_can_go(every, [], every) == [x[0], y, *alone]
    assert sweep._that_can_go(x[1:], [x[0], y, *alone], every) == []
    assert sweep._that_can_go(x[1:], [y], every) == [x[1]]  # the first has failed, so another one tries
    x[0].record = classifier_record()
    assert sweep._that_can_go(x[1:], [y], every) == x[1:]


@pytest.mark.slow
def test_workers_wait_for_the_teacher_on_no_machine_of_their_own(bench, capfd):
    pytest.importorskip("submitit")
    write_sweep(bench, recipes=("recipes/a.py",), axes={"teacher": ("x",), "seed": (0, 1, 2, 3)})
    (bench / "fail-a0").touch()
    assert cli.main(["sweep", "benchmarks/pair.py", "--workers", "submitit-local"]) == 1
    sent = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Sending")]
    assert sent == [
        "Sending 1 of 4 cells; 3 follow when their teachers are there",
        "Sending 1 of 4 cells; 2 follow when their teachers are there",  # the first had failed
        "Sending 2 of 4 cells",
    ]
    stays = {found.cell: found for found in sweeps.read_stays(bench / "runs/sweeps/pair")}
    ended = [stays[f"a,teacher=x,seed={seed}"].ended_utc for seed in (0, 1)]
    began = [stays[f"a,teacher=x,seed={seed}"].started_utc for seed in (1, 2, 3)]
    assert ended[0] <= began[0]
    assert ended[1] <= min(began[1:])


def test_workers_without_slurm_or_with_a_bad_option_are_refused(bench, capfd, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    assert "there is no sbatch here" in refuse(capfd, "--workers", "submitit")
    assert "should be name=value" in refuse(capfd, "--workers", "submitit-local", "--worker-options", "x")


# What is there already


def states(capfd, *arguments: str) -> list[str]:
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast", *arguments]) == 0
    shown = capfd.readouterr().out
    rows = [line.split() for line in shown.splitlines() if " seed=" in line]
    return [" ".join(row) for row in rows]


def test_cells_that_are_done_or_begun_are_found(bench, capfd):
    run_cell(bench, "a,seed=0")
    (bench / "fail-b0").touch()
    run_cell(bench, "b,seed=0")
    capfd.readouterr()
    expected = ["a seed=0 done 50.0 %", "b seed=0 to go on –", "b seed=1 to run –", "a seed=1 to run –"]
    assert states(capfd) == expected
    (bench / "recipes" / "b.py").write_text(textwrap.dedent(RECIPE) + "\n# another recipe by now\n")
    assert states(capfd)[1] == "b seed=0 to run –"


def test_what_was_declared_before_the_first_run_stands(bench, capfd):
    run_cell(bench, "a,seed=0")
    write_sweep(bench, more="margin=0.02")
    capfd.readouterr()
    sentence = refuse(capfd, "--dry-run")
    assert "margin was 0.01 and is 0.02" in sentence
    assert "start anew with another --out" in sentence
    assert cli.main(["sweep", "benchmarks/pair.py", "--dry-run", "--no-forecast", "--out", "elsewhere"]) == 0


def test_complete_run_of_another_config_or_sweep_is_not_taken_for_the_cell(bench, capfd):
    run_cell(bench, "a,seed=0", temperature=3.0)
    capfd.readouterr()
    assert "but temperature was 3.0 and is 2.0: choose another folder with --out" in refuse(capfd)
    files.write_json(
        bench / "runs/sweeps/pair/sweep.json", records.to_json(dataclasses.replace(DECLARED, sweep_id="s-2"))
    )
    write_sweep(bench, axes={"temperature": (3.0,), "seed": (0,)})
    (bench / "runs/sweeps/pair/a,seed=0").rename(bench / "runs/sweeps/pair/a,temperature=3.0,seed=0")
    assert "sweep.sweep_id was s-1 and is s-2" in refuse(capfd)


def test_read_gives_complete_records_oldest_first(tmp_path):
    for i, folder in enumerate(("x/new", "y/z/old", "x/middle")):
        (tmp_path / folder).mkdir(parents=True)
        record = classifier_record(run_id=folder, started_utc=f"2026-0{[3, 1, 2][i]}-01T00:00:00Z")
        records.write_record(tmp_path / folder, record)
    (tmp_path / "x" / "begun").mkdir()
    (tmp_path / "x" / "begun" / "config.json").write_text("{}")
    assert [r.run_id for r in sweeps.read(tmp_path)] == ["y/z/old", "x/middle", "x/new"]
    assert [r.run_id for r in sweeps.read(tmp_path / "x/new/record.json", tmp_path / "y")] == ["y/z/old", "x/new"]
    with pytest.raises(InputError, match="does not exist"):
        sweeps.read(tmp_path / "nowhere")


# What a run is told of its sweep


def run_declared(folder: Path, declared: records.Declaration, **changes) -> records.RunRecord:
    with Run(folder, meter="none", sweep=declared) as run:
        run.begin("toy", {"seed": 0})
        return finish(run, **changes)


def test_record_has_what_its_sweep_declared_in_place_of_the_recipes_own(tmp_path):
    record = run_declared(tmp_path / "r", DECLARED, margin=0.5)
    assert (record.sweep_id, record.metric, record.margin) == ("s-1", "accuracy", 0.01)
    with Run(tmp_path / "plain", meter="none") as run:
        run.begin("toy", {"seed": 0})
        plain = finish(run, margin=0.5)
    assert (plain.sweep_id, plain.margin) == (None, 0.5)


def test_metric_of_a_sweep_ranks_if_the_results_have_it_and_is_refused_if_not(tmp_path):
    both = dataclasses.replace(result("student", 0.9), metrics={"accuracy": metric(0.9), "macro_f1": metric(0.8)})
    curve = [records.CurvePoint(step=1, energy_j=1.0, cpu_s=1.0, value=0.4)]
    by_f1 = dataclasses.replace(DECLARED, metric="macro_f1")
    record = run_declared(tmp_path / "r", by_f1, results=[both], curve=curve)
    assert (record.metric, record.curve, record.curve_metric) == ("macro_f1", curve, "accuracy")
    same = run_declared(tmp_path / "s", DECLARED, results=[both], curve=curve)
    assert (same.curve, same.curve_of, same.curve_metric) == (curve, None, "accuracy")
    with pytest.raises(InputError, match="ranks by mrr_at_10, but the recipe's results have accuracy, macro_f1"):
        run_declared(tmp_path / "t", dataclasses.replace(DECLARED, metric="mrr_at_10"), results=[both])


def test_resumed_run_keeps_its_sweep_and_takes_no_other(bench, capfd):
    (bench / "fail-a0").touch()
    run = run_cell(bench, "a,seed=0")
    (bench / "fail-a0").unlink()
    files.write_json(bench / "other.json", records.to_json(dataclasses.replace(DECLARED, sweep_id="s-2")))
    assert cli.main(["run", "--resume", str(run), "--sweep", "other.json"]) == 2
    assert "began under another --sweep or none" in capfd.readouterr().err
    assert cli.main(["run", "--resume", str(run)]) == 0
    assert records.read_record(run).sweep_id == "s-1"
    assert cli.main(["run", "recipes/a.py", "--config", str(run / "config.json"), "--out", "again"]) == 0
    assert [record.sweep_id for record in sweeps.read("again")] == [None]  # a repeat belongs to no sweep


def test_sweep_file_of_a_run_that_is_absent_or_damaged_is_refused(tmp_path):
    with pytest.raises(InputError, match="should be the file that a sweep wrote"):
        sweeps.read_declaration(tmp_path / "sweep.json")
    (tmp_path / "sweep.json").write_text('{"sweep_id": "x", "metric": 1, "margin": 0.1}')
    with pytest.raises(DamagedError, match=r"sweep\.json: metric should be str, found 1"):
        sweeps.read_declaration(tmp_path / "sweep.json")


# Stop, kill, failure


def wait_for(path: Path, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process is None or process.poll() is None, "the sweep has ended"
        assert time.monotonic() < deadline, f"{path.name} does not appear"
        time.sleep(0.02)


COMMAND = [sys.executable, "-m", "smallmodels", "sweep", "benchmarks/pair.py"]


@pytest.mark.faults
def test_killed_sweep_goes_on_waits_for_its_orphan_reports_a_failure_and_runs_nothing_twice(bench):
    write_sweep(bench, axes={"seed": (0,)})
    (bench / "hold-a0").touch()
    (bench / "fail-b0").touch()
    first = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(bench / "began-a0", first)
    first.kill()
    first.wait()
    second = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = [second.stderr.readline(), second.stderr.readline()]
    assert f"Waiting for the run that process {first.pid} on " in said[1]
    (bench / "hold-a0").unlink()
    out, err = second.communicate(timeout=120)
    first.communicate()
    assert second.returncode == 1
    began = [line for line in out.splitlines() if line.startswith(("Running", "Going"))]
    assert began == ["Running cell 2 of 2: b seed=0"]  # the other one ended by itself
    assert "1 of 2 cells failed" in err
    rows = [" ".join(line.split()) for line in out.splitlines() if "seed=" in line]
    assert rows[1:] == ["a seed=0 done 50.0 %", "b seed=0 failed, exit 1 –"]
    (bench / "fail-b0").unlink()
    third = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert "Going on with cell 2 of 2: b seed=0" in third.stdout
    assert "b seed=0 ran " in " ".join(third.stdout.split())
    found = sweeps.read("runs/sweeps/pair")
    assert [(record.recipe, record.num_segments, record.command) for record in found] == [
        ("a", 1, "smallmodels run a --seed 0"),
        ("b", 2, "smallmodels run b --seed 0"),
    ]
    assert {(r.sweep_id, r.metric, r.margin) for r in found} == {(found[0].sweep_id, "accuracy", 0.01)}
    assert found[0].sweep_id.startswith("pair-")
    assert not (bench / "runs/sweeps/pair/.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_sweep_exits_75_with_its_run_saved_and_goes_on(bench, number):
    (bench / "hold-b0").touch()
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(bench / "began-b0", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "training stopped, has saved its work, and can resume" in err
    assert "the sweep was stopped: run it again, and it goes on" in err
    assert "1 of 4 cells are done" in out
    assert " stopped " in out
    (bench / "hold-b0").unlink()
    again = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert "Going on with cell 2 of 4: b seed=0" in again.stdout
    assert "4 of 4 cells are done" in again.stdout


def runner(bench: Path, code: str) -> sweep._Runner:
    """Runs a sweep whose runs are this code in place of the command."""
    cell = Sweep(recipes=("recipes/a.py",), axes={"seed": (0, 1)}, metric="accuracy", margin=0.0)
    jobs = [
        sweep.Job(name="pair", sweep=cell, cell=each, recipe=bench / "recipes/a.py", folder=bench / "out")
        for each in cell.cells()
    ]
    for job in jobs:
        job.command = lambda: [sys.executable, "-c", textwrap.dedent(code)]
    return sweep._Runner(jobs, bench / "out")


def test_every_signal_reaches_the_run_once_and_no_other_run_begins(bench, capfd):
    told = runner(
        bench,
        """
        import os, signal, time
        from pathlib import Path
        signal.signal(signal.SIGINT, lambda *_: print("told", flush=True))
        print("run", os.getpgid(0) == os.getpid(), flush=True)
        Path("ready").touch()
        while not Path("enough").exists():
            time.sleep(0.01)
        """,
    )

    def interrupt():
        wait_for(bench / "ready")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        (bench / "enough").touch()

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(RunInterruptedError, match="run it again"):
        told.run()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line in ("told", "run True")] == ["run True", "told", "told"]
    assert out.count("Running cell") == 1


def test_run_that_dies_of_a_signal_is_a_failure_and_the_next_one_runs(bench, capfd):
    dying = runner(bench, "import os; os.kill(os.getpid(), 9)")
    dying.run()
    assert [job.state for job in dying._jobs] == ["failed, signal 9"] * 2


def test_sweep_that_waits_for_another_can_be_stopped(bench, capfd):
    waiting = runner(bench, "")
    (bench / "out").mkdir()
    lock = folders.FolderLock(bench / "out")
    lock.acquire()
    thread = threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGTERM)))
    thread.start()
    with pytest.raises(RunInterruptedError, match="before it began"):
        waiting.run()
    thread.join()
    lock.release()
    assert f"Waiting for the run that process {os.getpid()} on " in capfd.readouterr().err
    assert list((bench / "out").iterdir()) == []
