"""What the benchmark of small models says of made-up records whose answer is known."""

import dataclasses

import pytest
import sample_records

from benchmarks import cpu_small, large_page, measured
from smallmodels import energy, files, records, sweeps
from smallmodels.cli import gathering
from smallmodels.errors import InputError

QUALITY = {"teacher": 0.92, "student": 0.915, "label_only": 0.90}


def record(seed=0, sweep="banking77", num_layers=3, num_parameters=6_600_000, speed=1000.0, **quality):
    """A run of a cell; `speed` is the student's texts per second, the teacher's being 100."""
    roles = QUALITY | quality
    uses = [
        dataclasses.replace(
            sample_records.inference(role, 1.0, num_parameters, 4 * num_parameters),
            throughput_per_s=100.0 if role == "teacher" else speed,
        )
        for role in roles
    ]
    return sample_records.classifier_record(
        run_id=f"{sweep}-{num_layers}-{seed}",
        config={"seed": seed, "num_layers": num_layers},
        sweep_id=f"{sweep}-20261128T120000Z-abcdef",
        margin=0.01,
        results=[sample_records.result(role, value, []) for role, value in roles.items()],
        inference=uses,
    )


def outcome(of=0, **changes):
    return cpu_small.Outcome(cpu_small.TARGETS[of], [record(seed, **changes) for seed in range(3)])


def test_target_is_met_by_the_mean_over_three_seeds():
    assert outcome().missed() == []
    below = [record(seed, student=value) for seed, value in enumerate((0.905, 0.908, 0.911))]
    assert cpu_small.Outcome(cpu_small.TARGETS[0], below).missed() == ["points"]
    assert cpu_small.Outcome(cpu_small.TARGETS[0], [record(0), record(1)]).missed() == ["2 of 3 seeds"]
    assert outcome(num_parameters=7_000_000).missed() == ["parameters"]
    assert outcome(tfidf=0.91).missed() == []
    assert outcome(tfidf=0.93).missed() == ["a teacher worth learning from"]


def test_target_of_a_share_and_of_speed():
    static = cpu_small.TARGETS.index(next(t for t in cpu_small.TARGETS if t.times_as_fast))
    assert outcome(of=static, student=0.83, speed=5000.0).missed() == []
    assert outcome(of=static, student=0.82, speed=4900.0).missed() == ["share", "texts per second"]


@pytest.mark.parametrize(("students", "says_so"), [((0.95, 0.95, 0.89), False), ((0.95, 0.90, 0.89), True)])
def test_distillation_did_not_help_below_two_of_three_seeds(students, says_so):
    runs = [record(seed, student=value) for seed, value in enumerate(students)]
    said = cpu_small.Outcome(cpu_small.TARGETS[0], runs).did_not_help
    assert ("did not help here" in said) is says_so


def test_embedder_is_held_to_the_rule_as_soon_as_its_runs_have_the_control():
    (stsb,) = (target for target in cpu_small.TARGETS if target.sweep == "stsb")
    runs = [record(seed, sweep="stsb", student=value) for seed, value in enumerate((0.95, 0.89, 0.89))]
    found = cpu_small.outcome_of(stsb, runs)
    assert (found.seeds_won, "1 of 3 seeds" in found.did_not_help) == ("1 of 3", True)
    without = [dataclasses.replace(run, results=[r for r in run.results if r.role != "label_only"]) for run in runs]
    found = cpu_small.outcome_of(stsb, without)
    assert (found.seeds_won, found.did_not_help) == ("no control", "")


def test_runs_are_chosen_by_sweep_and_settings():
    found = [record(1), record(0), record(0, num_layers=2), record(0, sweep="banking77_static"), record(0, sweep="x")]
    chosen = cpu_small.outcome_of(cpu_small.TARGETS[0], found).runs
    assert [run.run_id for run in chosen] == ["banking77-3-0", "banking77-3-1"]


def test_every_target_is_of_a_cell_of_its_sweep():
    for target in cpu_small.TARGETS:
        axes = cpu_small.SWEEPS[target.sweep].axes
        assert all(value in axes[name] for name, value in target.settings.items()), target.about


def test_records_are_kept_and_read_back_into_table_and_page(tmp_path):
    with pytest.raises(InputError, match="holds none"):
        gathering.keep_all(tmp_path, tmp_path / "results", cpu_small.kept_name, cpu_small.unfinished_name)
    for seed in range(3):
        run = tmp_path / "runs" / "banking77" / f"cell,seed={seed}" / "distill_text_classifier" / f"utc-s{seed}"
        run.mkdir(parents=True)
        files.write_json(run / records.RECORD_NAME, records.to_json(record(seed)))
    cpu_small.main([str(tmp_path / "runs"), "--root", str(tmp_path)])
    results = tmp_path / cpu_small.RESULTS
    assert len([*results.glob("banking77/*/record.json")]) == 3
    text = (tmp_path / cpu_small.TABLE).read_text(encoding="utf-8")
    assert "| Banking77, 3 layers, trimmed vocabulary, 1,280 feed-forward units |" in text
    assert "3 of 3" in text
    assert " 9,003 | accuracy | " in text  # on how many texts teacher and student learned
    assert "91.5 % (91.5–91.5 %, n 3)" in text.replace("\u00a0", " ")
    assert "| 100 % | met |" in text
    assert "(label: " in text
    assert (results / cpu_small.PAGE / "index.html").is_file()
    assert "Runs without a record" not in text
    assert "What is met here is no advice to distil." in text.partition(cpu_small.SUMMARY_END)[0]
    page = (results / cpu_small.PAGE / "report.md").read_text(encoding="utf-8")
    advised = "Do not distil on this evidence: that the student is within the margin (1.0 points) of the teacher is not"
    assert all(advised in said.replace("\u00a0", " ") for said in (text, page))


def test_run_that_failed_is_in_the_account_that_is_published(tmp_path):
    for seed in range(3):
        run = tmp_path / "runs" / f"utc-s{seed}"
        run.mkdir(parents=True)
        files.write_json(run / records.RECORD_NAME, records.to_json(record(seed)))
    for name, sweep in (("failed", "banking77"), ("other", "elsewhere")):
        folder = tmp_path / "runs" / name
        about = {"sweep_id": f"{sweep}-20261128T120000Z-abcdef", "metric": "accuracy", "margin": 0.01}
        folder.mkdir()
        files.write_json(folder / "config.json", {"run_id": name, "recipe": "distill_text_classifier", "sweep": about})
        meter = energy.Meter("fake", journal=folder / "journal.jsonl", run_id=name)
        meter.start()
        meter.stop()
    cpu_small.main([str(tmp_path / "runs"), "--root", str(tmp_path)])
    results = tmp_path / cpu_small.RESULTS
    assert [run.run_id for run in gathering.unfinished_runs(results)] == ["failed"]
    assert "Runs without a record: 1, with " in (tmp_path / cpu_small.TABLE).read_text(encoding="utf-8")
    page = (results / cpu_small.PAGE / "report.md").read_text(encoding="utf-8")
    assert "all 3 runs here and 1 that never ended" in page
    assert "| failed | distill" in page


def test_every_task_has_its_first_seed_before_any_has_its_second():
    found = [cell.values["seed"] for _, cell in sweeps.in_turn(cpu_small.SWEEPS)]
    assert found == sorted(found)
    assert len(found) == sum(len(sweep.cells()) for sweep in cpu_small.SWEEPS.values())


SOURCE = """Distil something.

Source:    somebody.
Expected:  something.
Licences:  free.
"""


def test_line_in_a_recipes_docstring_is_of_its_record_and_is_replaced(tmp_path):
    recipe, results = tmp_path / "recipes" / "some.py", tmp_path / "benchmarks" / "results"
    recipe.parent.mkdir()
    recipe.write_text(SOURCE, encoding="utf-8")
    for student in (0.9, 0.8):
        folder = results / "some"
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / records.RECORD_NAME, records.to_json(record(student=student)))
        assert measured.main(["--root", str(tmp_path), "--check"]) == 1
        assert measured.main(["--root", str(tmp_path)]) == 0
        text = recipe.read_text(encoding="utf-8")
        assert text.count("Measured:") == 1
        quality = f"accuracy {100 * student:.1f} % (teacher 92.0 %, labels alone 90.0 %)"
        assert f"Measured: PolyAI/banking77: {quality}, one seed" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= measured.WIDTH
    (results / "some" / records.RECORD_NAME).unlink()
    measured.main(["--root", str(tmp_path)])
    assert recipe.read_text(encoding="utf-8") == SOURCE


def test_large_page_is_of_as_many_different_runs_each_with_its_predictions(tmp_path):
    num_kept = len([*large_page.KEPT.rglob(records.RECORD_NAME)])
    large_page.write_runs(num_kept + 1, tmp_path)
    found, evidence = gathering.gather([str(tmp_path)])
    assert len({record.run_id for record in found}) == len(evidence.predictions) == num_kept + 1
    assert {record.config["temperature"] for record in found} == {1.0, 1.01}
