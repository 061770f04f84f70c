"""A keeper whose agent dies at an operation: `mortal_keeper.py DIRECTORY PYTHON ... -m agent VERB FLAGS`.

It is the keeper of `python -m agent`, but for two things: its agent is started by `mortal_agent.py`, which
looks into DIRECTORY for when to die, and one that died often is not waited for any longer the next time.
"""

from __future__ import annotations

import os
import sys

from agent.keeper import loop
from agent.keeper.main import main

MORTAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mortal_agent.py")

if __name__ == "__main__":
    directory, command = sys.argv[1], sys.argv[2:]
    loop.BACKOFF = (0.05, 0.05)
    words = command[command.index("-m") + 2 :]
    sys.exit(main(words, [sys.executable, "-P", MORTAL, directory, *words]))
