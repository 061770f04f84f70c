"""What the command's exit code says, for scripts.

| code | meaning |
|---|---|
| 0 | what was asked for is done |
| 1 | it was tried and failed: a deploy failed or was rolled back, a state has mistakes, something is bad |
| 2 | the command line is wrong: an unknown option, an app that does not exist |
| 3 | no agent answers |
| 4 | not possible now: the agent says why and what to do |
| 130 | interrupted (Ctrl-C); what the agent was asked for goes on, but for a command of `exec` |
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_NOW: Final = 4
INTERRUPTED: Final = 130
