"""Search our code and the pinned versions for known holes: bandit, and pip-audit on constraints.txt.

Both come with `pip install -e '.[audit]'`. A tool that is absent, or whose list of advisories cannot be reached, is
skipped with a word, because `make check` has to work without a network. Exits with 1 if something is found.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BANDIT = ["bandit", "--quiet", "--recursive", "--severity-level=medium", "-c", "pyproject.toml"]
PIP_AUDIT = ["pip_audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner=off", "-f", "json"]
TIMEOUT_S = 300
HARMLESS = {
    "CVE-2024-35515": "sqlitedict unpickles its own file; lm-eval opens one only with use_cache, which we never give",
}
"""Advisories without a mended version that do not reach us, and why."""


def main() -> int:
    """Run both; returns the exit code."""
    return max(audit_code(), audit_pins())


def audit_code() -> int:
    """What bandit finds in the package, the recipes and the benchmarks."""
    if is_absent("bandit"):
        return 0
    done = run([*BANDIT, "smallmodels", "recipes", "benchmarks", ".ci"])
    print(done.stdout or "bandit: nothing found", end="" if done.stdout else "\n")
    print(done.stderr, end="", file=sys.stderr)
    return min(done.returncode, 1)


def audit_pins() -> int:
    """Advisories on the versions in constraints.txt."""
    if is_absent("pip_audit"):
        return 0
    try:
        done = run(PIP_AUDIT)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("pip-audit: skipped, because no list of advisories can be reached")
        return 0
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):  # an index without advisories says of each package that it is not there
        print("pip-audit: skipped, because the package index in use has no list of advisories")
        return 0
    found = [
        (p["name"], p["version"], v["id"], v["fix_versions"])
        for p in packages
        for v in p.get("vulns", [])
        if not HARMLESS.keys() & {v["id"], *v.get("aliases", [])}
    ]
    for name, version, advisory, fixes in found:
        print(f"pip-audit: {name} {version} has {advisory}; mended in {', '.join(fixes) or 'no version yet'}")
    print(f"pip-audit: {len(found)} advisories on {len(packages) - len(unknown)} packages")
    if unknown:
        print(f"pip-audit: not known, so not searched: {', '.join(unknown)}")
    return 1 if found else 0


def is_absent(module: str) -> bool:
    """Whether a tool is not installed; says so."""
    absent = importlib.util.find_spec(module) is None
    if absent:
        print(f"{module.replace('_', '-')}: skipped, because it is not installed (pip install -e '.[audit]')")
    return absent


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A tool as a module of this Python, in the root of the repository."""
    words = [sys.executable, "-m", *command]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


if __name__ == "__main__":
    sys.exit(main())
