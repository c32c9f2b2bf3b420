"""Refuse files above 1 MB: weights and data sets belong elsewhere, and a repository never forgets."""

import sys
from pathlib import Path

MAX_BYTES = 1_000_000


def main(paths: list[str]) -> int:
    """Name every file that is too large; 1 if there is one."""
    too_large = [path for path in paths if Path(path).is_file() and Path(path).stat().st_size > MAX_BYTES]
    for path in too_large:
        print(f"{path} should be at most {MAX_BYTES:,} bytes, has {Path(path).stat().st_size:,}: keep it elsewhere")
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
