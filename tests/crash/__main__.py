"""`python -m tests.crash`: see `every`."""

import sys

from tests.crash.every import main

if __name__ == "__main__":
    sys.exit(main())
