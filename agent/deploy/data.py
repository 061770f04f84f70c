"""What the data of an app let it do: which releases can run, and which migrations are due."""

from __future__ import annotations

from agent.deploy.ledger import identity_of, release_of
from agent.deploy.services import AS_WANTED, AppContext
from agent.deploy.unfinished import Unfinished
from agent.deploy.way_back import FREE, WayBack, vouch, way_back
from agent.deploy.wish import Wish
from agent.domain.errors import Failure
from agent.domain.spec import AppSpec, MigrationKind


def way_to(app: AppContext, spec: AppSpec, release: str, *, back: bool = False) -> WayBack:
    """Whether the data let a release run: one that ran before, or an older one (`back`).

    A new one brings its migrations.
    """
    current, ledger = app.current, app.services.journal.ledger
    key = release or spec.digest
    if (not back and not ledger.knows(app.name, key)) or (
        current is not None and release_of(current.pair) == key
    ):
        return FREE
    leaving = current.spec if current is not None else None
    allowed = spec.down or (leaving is not None and leaving.down)
    return way_back(ledger, app.name, key, spec.version, leaving, allowed)


def contract_key(digest: str) -> str:
    """What stands in quarantine for the contract migrations of a specification that itself is well."""
    return f"contract {digest}"


def contracts(app: AppContext, spec: AppSpec) -> tuple[str, ...]:
    """Names of the migrations that are due, because what serves has proved itself."""
    good, journal = app.good, app.services.journal
    if good is None or good.spec.digest != spec.digest or app.serving.child is None:
        return ()
    if journal.quarantine.find(app.name, contract_key(spec.digest)) is not None:
        return ()
    release = release_of(good.pair)
    return tuple(
        m.name
        for m in spec.migrate
        if m.kind is MigrationKind.CONTRACT and not journal.ledger.through(app.name, identity_of(m, release))
    )


def contract_wish(app: AppContext) -> Wish | None:
    """A wish for what had to wait until the release that serves had proved itself, if anything had."""
    good = app.good
    if good is None or app.services.paused() is not None or app.services.frozen() is not None:
        return None
    if app.contracted == good.pair.spec or not contracts(app, good.spec):
        return None
    app.contracted = good.pair.spec  # once; what asks for later is asked again by the next look
    wish = Unfinished.nobodys(good.spec, good.pair.commit)
    wish.contract = True
    return wish


def held_back(app: AppContext, wish: Wish, spec: AppSpec, release: str) -> Failure | None:
    """Why a release that ran before cannot run on the data any more; None when it can.

    An operator who goes through vouches for the data.
    """
    way = way_to(app, spec, release, back=not wish.newest)
    if way.blocked and not wish.override:
        failure = way.failure()
        app.condition("RollbackBlocked", True, failure.reason, str(failure))
        return failure
    if way.blocked:
        vouch(app.services.journal.ledger, way)
    if way.blocked or not (app.serving.nobody or way.downs):
        app.condition("RollbackBlocked", False, AS_WANTED)
    return None
