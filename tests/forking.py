"""Children forked from one clean process, so that a child costs no imports.

That process imports what recipes import, lets CodeCarbon look at the machine, and runs no operation of torch.

Run as a script this is that process. It reads requests from standard input, a line of JSON each, and calls a function
of `children` in a child for each.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent


class Child:
    """A forked child that runs, or has ended."""

    def __init__(self, server, pid, folder):
        self._server, self.pid, self._folder = server, pid, folder

    def wait(self, timeout_s=60.0):
        """Its exit code, negative for a signal."""
        code = self._server.ask("wait", [self.pid, timeout_s])
        assert code is not None, "the child did not end"
        return code

    def output(self):
        """What it wrote to standard output and error."""
        return (self._folder / "output.txt").read_text()

    def result(self):
        """What its function returned; the child must not have failed."""
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.output()[-3000:]}"
        return json.loads((self._folder / "result.json").read_text())


def environment():
    """Of a process that finds the clone and these helpers; tiny tensors would only wait for a second thread."""
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


class Server:
    """Starts children."""

    def __init__(self, scratch):
        self._scratch, self._count = scratch, 0
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, __file__], env=environment(), **pipes)
        assert self._process.stdout.readline().strip() == "ready"

    def ask(self, kind, value):
        self._process.stdin.write(json.dumps([kind, value]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, function, **arguments):
        """Call `children.<function>` in a child; paths are given as strings."""
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        return Child(self, self.ask("start", [function, plain, str(folder)]), folder)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@contextlib.contextmanager
def serving(scratch):
    """A server until the block ends."""
    server = Server(scratch)
    try:
        yield server
    finally:
        server.close()


def _serve():
    import children  # imports what its functions use

    _import_what_recipes_import()
    print("ready", flush=True)
    for line in sys.stdin:
        kind, value = json.loads(line)
        answer = _fork(children, *value) if kind == "start" else _wait(*value)
        print(json.dumps(answer), flush=True)


def _import_what_recipes_import():
    from smallmodels import cli, energy

    for recipe in cli.shipped_recipes().values():
        cli.load_recipe(str(recipe))
    late = "codecarbon", "peft", "pyarrow.parquet", "smallmodels.report", "tyro"
    for module in (*late, "sklearn.feature_extraction.text", "sklearn.linear_model", "smallmodels.cards"):
        importlib.import_module(module)
    with energy.Meter():  # looks for the machine's parts, which takes a second and is remembered
        pass
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(timeout=10)
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"


def _fork(module, function, arguments, folder):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(f"{folder}/output.txt", os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = getattr(module, function)(**arguments)
        Path(folder, "result.json").write_text(json.dumps(result))
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(pid, timeout_s):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    _serve()
