"""`python -m tests.crash`: see `every`; `python -m tests.crash replay`: see `replays`."""

import sys

from tests.crash import every, replays

if __name__ == "__main__":
    if sys.argv[1:2] == ["replay"]:
        sys.exit(replays.main(sys.argv[2:]))
    sys.exit(every.main())
