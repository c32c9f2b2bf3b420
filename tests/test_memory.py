import subprocess
import sys

import pytest

FAULTS = """
import resource
from smallmodels import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = bytearray(b"x") * (64 << 20)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
memory.keep_freed()
faults()
kept = faults()
memory.give_back()
print(before, kept, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is not glibc")
@pytest.mark.parametrize(("setting", "keeps"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_keep_freed_lets_the_next_tensor_have_the_same_pages_unless_the_user_has_set_something(setting, keeps):
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path), **setting}, capture_output=True, text=True)
    before, kept, given_back = map(int, done.stdout.split())
    pages = (64 << 20) // 4096  # of one block; fewer faults where pages are larger
    assert (kept < before / 4) == keeps or before < pages
    assert not keeps or given_back > kept
