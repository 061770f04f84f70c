"""What is said about an app, from what its lane knows: the one word, and whether it is what is wanted."""

from __future__ import annotations

from agent.deploy.leaving import tell_grace
from agent.deploy.services import AS_WANTED, AppContext
from agent.deploy.sockets import tell_socket_mode
from agent.deploy.wish import Wish
from agent.domain.model import AppState, Instance, NoChange, Pair, Plan, RunResult
from agent.domain.spec import AppSpec
from agent.traffic.state import Mode

OPERATOR_ROLLBACK = "OperatorRollback"  # the reason of a quarantine that is nobody's fault


def state_of(app: AppContext, *, updating: bool, on_trial: bool) -> AppState:
    """The first line that fits is the word.

    Args:
        app: the app.
        updating: a run is under way.
        on_trial: its release is on probation.
    """
    child, current = app.serving.child, app.current
    if child is None and current is not None and current.spec.run is None:
        if updating:
            return AppState.UPDATING
        if app.jobs.working:
            return AppState.WORKING
        as_wanted = app.wanted is None or app.wanted.digest == current.spec.digest
        if not app.placed or not as_wanted:
            return AppState.DEGRADED
        return AppState.PLACED if current.spec.job is None else AppState.READY
    if child is None or app.serving.restarting:
        gate = app.gates.main
        if gate is not None and gate.state.mode in (Mode.MAINTENANCE, Mode.HOLDING):
            return AppState.MAINTENANCE
        if updating:
            return AppState.UPDATING
        return AppState.FAILED if current or app.wanted else AppState.EMPTY
    if updating:
        return AppState.CANARY if app.canary.running else AppState.UPDATING
    wanted = app.wanted
    if app.unhealthy or (wanted is not None and wanted.digest != child.deployment.spec.digest):
        return AppState.DEGRADED
    return AppState.PROBATION if on_trial else AppState.RUNNING


def tell_instances(app: AppContext) -> None:
    """Tell who is there of an app, and what each is for."""
    serving = app.serving
    lead = serving.child
    run = lead.deployment.spec.run if lead is not None else None
    told = []
    for child in sorted(serving.everyone(), key=lambda each: each.number):
        if not child.alive:
            continue
        state = "leaving" if child.expected else serving.role(child)
        version = child.deployment.pair.version
        said = app.services.processes.said(child)
        told.append(Instance(child.number, child.id, child.pid, version, state, said))
    app.instances(run.instances if run is not None else 0, tuple(told))


def tell_standing(app: AppContext) -> None:
    """Tell whether what serves is what is wanted, and who is to blame if not. Between runs only."""
    tell_socket_mode(app)
    tell_grace(app)
    wanted, current = app.wanted, app.current
    if wanted is None or current is None:
        return
    held = app.quarantined(wanted)
    failed = held if held is not None and held.reason != OPERATOR_ROLLBACK else None
    behind = current.spec.digest != wanted.digest
    if failed is not None:
        app.condition("Quarantined", True, failed.reason, failed.message)
    else:
        app.condition("Quarantined", False, AS_WANTED)
    if behind and held is not None and failed is None:
        app.condition("Diverged", True, OPERATOR_ROLLBACK, held.message)
    else:
        app.condition("Diverged", False, AS_WANTED)
    if behind:
        serves, other = current.pair.version, wanted.version
        told = f"version {serves} serves, {other if other != serves else 'another of it'} is wanted"
        app.condition("Degraded", True, "EarlierSpecification", told)
    else:
        app.condition("Degraded", False, AS_WANTED)


def told_of(wish: Wish, spec: AppSpec, outcome: Plan | NoChange) -> str:
    """Why there is, or is not, a run for a wish."""
    if wish.newest:
        return outcome.reason
    if wish.rollback:
        return f"an operator went back to version {spec.version}"
    if wish.drifted:
        return f"{', '.join(wish.drifted[:4])} changed on this host"
    return f"it does not work; version {spec.version} of before is tried" if wish.fallback else outcome.reason


def told_apart(old: Pair, new: Pair) -> str:
    """`1.0 to 2.0`, with their commits when the versions are the same."""
    if old.version != new.version:
        return f"{old.version} to {new.version}"
    return f"{old.version} of commit {old.commit[:10]} to that of commit {new.commit[:10]}"


def word_of(result: RunResult) -> str:
    """A result as the CamelCase reason of a condition: rolled-back is RolledBack."""
    return "".join(part.capitalize() for part in result.value.split("-"))
