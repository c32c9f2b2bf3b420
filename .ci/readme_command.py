"""Print the one shell block of README.md that holds a word, so that CI runs what people copy."""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def main() -> int:
    """Print the block with the word that was given; 1 if there is none or there are several."""
    word = sys.argv[1]
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    found = [block for block in blocks if word in block]
    if len(found) != 1:
        print(f"README.md should have one shell block with {word!r} in it, found {len(found)}", file=sys.stderr)
        return 1
    print(found[0], end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
