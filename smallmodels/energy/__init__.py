"""What a run costs: time, CPU-seconds and joules, each joule with a label that says how it was obtained.

    with energy.Meter() as meter:
        with meter.phase("train") as train:
            ...
    print(train.reading.energy_j, train.reading.label)

CodeCarbon measures, offline and through its public API. This package adds what an account needs to be trusted: phases
that nest and sum to the run, an append-only journal that survives `kill -9`, labels, one owner per machine, and
CPU-seconds, which stay true where joules are a guess. Nothing here breaks a training run: what cannot be measured
becomes None with the label `missing`, and a sentence in `Meter.warnings`.

Labels, from strong to weak: `wall` a meter at the socket; `counter` the hardware's own energy counter (RAPL, NVML);
`sampled` power read at intervals; `user` a number given by the user; `modelled` computed from load, such as rated
power times load; `constant` a fixed guess, such as watts per memory module; `unknown` the backend does not say;
`missing` not measured. All but `wall` leave out power supply, fans, disks, screen and network.

Files: `readings` the numbers and their arithmetic, `backends` where joules come from (the only importer of codecarbon),
`journal` what is written and how it is read back, `machine` who else uses it, `meter` the clockwork around them.
"""

from smallmodels.energy.backends import Backend, CodeCarbonBackend, FakeBackend, NullBackend
from smallmodels.energy.journal import LOSS, OTHER, JournalTotals, read_journal
from smallmodels.energy.machine import MAX_FOREIGN_FRACTION, OWNER_VARIABLE
from smallmodels.energy.meter import Meter, PhaseMeasurement
from smallmodels.energy.readings import MIN_WINDOW_S, EnergyReading, carbon, from_wh, to_kwh, to_wh

__all__ = [
    "LOSS",
    "MAX_FOREIGN_FRACTION",
    "MIN_WINDOW_S",
    "OTHER",
    "OWNER_VARIABLE",
    "Backend",
    "CodeCarbonBackend",
    "EnergyReading",
    "FakeBackend",
    "JournalTotals",
    "Meter",
    "NullBackend",
    "PhaseMeasurement",
    "carbon",
    "from_wh",
    "read_journal",
    "to_kwh",
    "to_wh",
]
