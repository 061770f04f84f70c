"""The one entry point: `run` and `once` become the keeper at once, importing nothing it must not hold."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Sequence

KEEPER_VERBS = ("run", "once")
AGENT = "_agent"  # internal: what the keeper starts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb, rest = (words[0] if words else ""), words[1:]
    if verb in KEEPER_VERBS and not {"-h", "--help"} & set(rest):
        from agent.keeper.main import main as keeper

        return keeper(words)
    if verb == AGENT:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # the keeper passes them on
            signal.signal(number, signal.SIG_IGN)  # HUP gets its meaning once there is an agent
        # Written without the interpreter's help, so also by one that hangs: names of files and functions.
        faulthandler.register(signal.SIGUSR2, all_threads=True)
        from agent.kit.lean_aiohttp import load

        load()
        from agent.app import main as agent

        return agent(rest)
    from agent.cli.main import main as cli

    return cli(words)


if __name__ == "__main__":
    sys.exit(main())
