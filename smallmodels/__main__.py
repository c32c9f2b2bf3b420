"""`python -m smallmodels` is the command `smallmodels`."""

import sys

from smallmodels.cli import main

if __name__ == "__main__":
    sys.exit(main())
