"""How long the page of a thousand runs takes, with their predictions and without, how large and how smooth it is.

Run:       python benchmarks/large_page.py [--count 1000]
           on an idle machine; three minutes, no network. The browser's numbers need the extra `browser` and a Chromium.
Runs:      those that `cpu_small.py` has kept, repeated, each time at another temperature, so that seeds stay together:
           those of one task, as a sweep has them, with their predictions and as records alone, and those of all of its
           tasks, which are not ranked together and have pictures and tables each. Their folders are written first, and
           read by `smallmodels report` in a fresh process, which is what is timed.
Reads:     `report_s` and `report_cpu_s` of that process, wanted below 10 s; `page_bytes`, below 1,000,000; `open_ms`
           until the page is loaded; `act_ms`, the slowest of sorting, filtering and focusing, wanted smooth, where a
           table has a hundred rows.
Writes:    benchmarks/results/large_page.json
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from smallmodels import environment, files, records

RESULTS = Path(__file__).parent / "results"
KEPT, RESULT = RESULTS / "cpu_small", RESULTS / "large_page.json"
ACTS = """table => {
    const timed = (act) => {
        const began = performance.now();
        act();
        table.offsetHeight;
        return performance.now() - began;
    };
    const field = table.closest(".scroll").previousElementSibling.querySelector("input");
    const search = (text) => { field.value = text; field.dispatchEvent(new Event("input")) };
    return [
        timed(() => table.tHead.rows[0].cells[1].querySelector("button").click()),
        timed(() => search("student")),
        timed(() => search("")),
        timed(() => document.querySelector(".mark").focus()),
    ]
}"""
"""Milliseconds that a table takes to sort, to filter, and to show all again, and a point of a picture to be focused."""


def write_runs(count: int, folder: Path, *, sweep: str = "", predictions: bool = True) -> None:
    """So many run folders with a record and maybe predictions each, made of the kept ones, all or those of a sweep."""
    kept = sorted(path.parent for path in (KEPT / sweep).rglob(records.RECORD_NAME))
    for number in range(count):
        source, round_ = kept[number % len(kept)], number // len(kept)
        run = folder / f"{number:04}"
        run.mkdir()
        record = files.read_json(source / records.RECORD_NAME)
        record["run_id"] = f"{record['run_id']}-{round_}"
        record["config"]["temperature"] = 1 + round_ / 100
        files.write_json(run / records.RECORD_NAME, record)
        if predictions:
            shutil.copyfile(source / records.PREDICTIONS_NAME, run / records.PREDICTIONS_NAME)


def time_report(folder: Path, out: Path) -> dict[str, Any]:
    """Seconds and CPU-seconds of `smallmodels report` in a fresh process, and the size of its page."""
    command = [sys.executable, "-m", "smallmodels", "report", str(folder), "--out", str(out)]
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = time.perf_counter() - began, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {"report_s": seconds, "report_cpu_s": cpu_s, "page_bytes": (out / "index.html").stat().st_size}


def chromium() -> str | None:
    """The browser of the system; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def time_browser(page_file: Path) -> dict[str, Any]:
    """Milliseconds until a headless Chromium has loaded the page, and of the slowest of four acts; none without one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        began = time.perf_counter()
        page.goto(page_file.resolve().as_uri())
        open_ms = 1000 * (time.perf_counter() - began)
        tables = page.locator("table").filter(has=page.locator("tbody tr:nth-child(100)"))
        act_ms = max(tables.first.evaluate(ACTS)) if tables.count() else None
        version = browser.version
        browser.close()
    return {"open_ms": open_ms, "act_ms": act_ms, "chromium": version}


def measure(count: int, sweep: str, *, predictions: bool = True) -> dict[str, Any]:
    """All numbers of a page; of every sweep where it has no name."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "runs", Path(name) / "page"
        folder.mkdir()
        write_runs(count, folder, sweep=sweep, predictions=predictions)
        about = {"sweep": sweep or "all", "predictions": predictions}
        return {**about, **time_report(folder, out), **time_browser(out / "index.html")}


def main() -> None:
    """Measure, print and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="runs")
    parser.add_argument("--output", type=Path, default=RESULT, help="a JSON file")
    arguments = parser.parse_args()
    found = [measure(arguments.count, sweep) for sweep in ("banking77_all", "")]
    found.insert(0, measure(arguments.count, "banking77_all", predictions=False))
    for page in found:
        print(*(f"{key} {value:,.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in page.items()))
    machine = environment.environment(energy_labels={}, tracking_mode="none")
    content = {"environment": records.to_json(machine), "num_runs": arguments.count, "pages": found}
    files.write_json(arguments.output, content)


if __name__ == "__main__":
    main()
