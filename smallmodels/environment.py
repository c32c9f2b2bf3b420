"""The machine and the software that a run used, without names of hosts, users or folders."""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from smallmodels import files, records

PACKAGES = (
    "numpy", "torch", "transformers", "tokenizers", "datasets", "accelerate", "peft", "codecarbon", "scikit-learn",
)  # fmt: skip
"""Packages that move numbers."""

CAPS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that keep torch and the libraries beneath it from instructions that the processor has."""

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_QUERY_TIMEOUT_S = 10


def environment(*, energy_labels: Mapping[str, str], tracking_mode: str) -> records.Environment:
    """Describe this machine; the fingerprint is a hash of every other field.

    Runs with and without a cap on the processor's instructions have two fingerprints and are never ranked together.
    Where the instructions are not known they are no part of it, as in older records. Memory is in whole GB, because how
    much of it a kernel keeps for itself differs from boot to boot.

    Args:
        energy_labels: How each component's joules are obtained here, from the meter.
        tracking_mode: What the meter watches: the machine or the process.
    """
    import psutil

    gpu, driver = _gpu()
    described = records.Environment(
        processor=_processor(),
        num_cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        num_threads=_num_threads(),
        memory_mb=1000 * max(1, round(psutil.virtual_memory().total / 1e9)),
        gpu=gpu,
        gpu_driver=driver,
        operating_system=_operating_system(),
        virtual_machine=_virtual_machine(),
        power_policy=_read_line(_GOVERNOR),
        versions=versions(),
        energy_labels=dict(energy_labels),
        tracking_mode=tracking_mode,
        fingerprint="",
        vector_instructions=_vector_instructions(),
    )
    return dataclasses.replace(described, fingerprint=fingerprint(described))


def fingerprint(described: records.Environment) -> str:
    """Hash of every field but the hash itself, of later ones only where they are known."""
    content = records.to_json(described)
    del content["fingerprint"]
    if described.vector_instructions is None:
        del content["vector_instructions"]
    return files.sha256_json(content)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among `PACKAGES`, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the clone that this package runs from, and whether its tracked files were changed.

    Both are None when the package is installed, not run from a clone of its own.
    """
    package = Path(__file__).parent
    # Without this check, a virtual environment inside somebody's repository would give that repository's commit.
    if _output(["git", "-C", str(package), "ls-files", "--error-unmatch", Path(__file__).name]) is None:
        return None, None
    commit = _output(["git", "-C", str(package), "rev-parse", "HEAD"])
    changes = _output(["git", "-C", str(package), "status", "--porcelain", "--untracked-files=no"])
    return commit, None if changes is None else bool(changes)


def _output(command: list[str]) -> str | None:
    """What a command prints, stripped; None if it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _cpuinfo(key: str) -> str | None:
    """The first value of a key in /proc/cpuinfo; None where the system has no such file."""
    for line in (_read_line(_CPUINFO) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _processor() -> str:
    if found := _cpuinfo("model name"):
        return found
    if sys.platform == "darwin" and (found := _output(["sysctl", "-n", "machdep.cpu.brand_string"])):
        return found
    return platform.processor() or platform.machine() or "unknown"


def _operating_system() -> str:
    """System, release and machine; never the host's name."""
    name = platform.system()
    if name == "Linux":
        with contextlib.suppress(OSError, KeyError):
            name = platform.freedesktop_os_release()["PRETTY_NAME"]
    kernel = re.match(r"[\d.]*\d", platform.release())  # what follows the numbers may be a name that somebody gave it
    return f"{name}, kernel {kernel.group() if kernel else 'unknown'}, {platform.machine()}"


def _virtual_machine() -> bool | None:
    flags = _cpuinfo("flags")
    if flags is not None:
        return "hypervisor" in flags.split()
    if sys.platform == "darwin" and (found := _output(["sysctl", "-n", "kern.hv_vmm_present"])):
        return found == "1"
    return None


def _num_threads() -> int:
    """Threads that PyTorch computes with, where it is loaded; else the processors this process may use."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _vector_instructions() -> str | None:
    """Such as `AVX512, AMX_BF16`, or `AVX2, ONEDNN_MAX_CPU_ISA=AVX2`; None where PyTorch is not loaded.

    Units for products in bf16 are named because runs choose their number format by them.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "backends"):
        return None
    flags = (_cpuinfo("flags") or "").split()
    units = [name.upper() for name in ("amx_bf16", "avx512_bf16") if name in flags][:1]
    caps = [f"{name}={os.environ[name]}" for name in CAPS if os.environ.get(name)]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *units, *caps])


def _gpu() -> tuple[str | None, str | None]:
    """Names of the GPUs and their driver, as far as they can be asked."""
    listed = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.split(", ") for line in (listed or "").splitlines() if ", " in line]
    if rows:
        names = sorted({row[0] for row in rows})
        counted = [f"{sum(row[0] == name for row in rows)} x {name}" for name in names]
        return ", ".join(counted), rows[0][1]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return f"{_processor()} GPU", None
    return None, None
