"""The one word for an app, from what its lane knows."""

from __future__ import annotations

from agent.deploy.services import AppContext
from agent.domain.model import AppState
from agent.traffic.state import Mode


def state_of(app: AppContext, *, removed: bool, updating: bool, on_trial: bool) -> AppState:
    """The first line that fits is the word.

    Args:
        app: the app.
        removed: it is gone from the state.
        updating: a run is under way.
        on_trial: its release is on probation.
    """
    if removed:
        return AppState.STOPPED
    child = app.serving.child
    if child is None or app.serving.restarting:
        if app.gate is not None and app.gate.state.mode in (Mode.MAINTENANCE, Mode.HOLDING):
            return AppState.MAINTENANCE
        if updating:
            return AppState.UPDATING
        return AppState.FAILED if app.current or app.wanted else AppState.EMPTY
    if updating:
        return AppState.UPDATING
    wanted = app.wanted
    if app.unhealthy or (wanted is not None and wanted.digest != child.deployment.spec.digest):
        return AppState.DEGRADED
    return AppState.PROBATION if on_trial else AppState.RUNNING
