"""Processes that may open no connection and write down each one they try."""

import os
from collections.abc import Mapping
from pathlib import Path

_HOOK = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        target = arguments
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # a path is a socket of this machine's own
        target = arguments[1]
    else:
        return
    with open(os.environ["CONNECTIONS"], "a") as file:
        file.write(f"{event} {target}\\n")
    raise ConnectionRefusedError(f"{event}: this process has no network")
sys.addaudithook(refuse)
"""


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment in which every Python, workers included, has no network; attempts are noted in the folder."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_HOOK)
    paths = [str(site), str(Path(__file__).parents[1]), variables.get("PYTHONPATH", "")]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths), "CONNECTIONS": str(folder / "connections")}


def connections(folder: Path) -> str:
    """The attempts, one a line."""
    path = folder / "connections"
    return path.read_text() if path.exists() else ""
