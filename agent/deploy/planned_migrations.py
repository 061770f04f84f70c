"""Where migrations stand in a plan, by their kind."""

from __future__ import annotations

from agent.domain.model import Plan, PlannedStep
from agent.domain.spec import AppSpec, MigrationKind, MigrationSpec

KINDS = {
    MigrationKind.EXPAND: "expand: the old version runs on what it leaves behind, too",
    MigrationKind.CONTRACT: "contract: no older version runs on what it leaves behind",
    MigrationKind.EXCLUSIVE: "exclusive: the app is down meanwhile",
    MigrationKind.REVERSIBLE: "reversible: the app is down meanwhile; older versions run once its down has",
    MigrationKind.IRREVERSIBLE: "irreversible: the app is down meanwhile, and no older version runs after it",
}


def migration_step(wanted: AppSpec, migration: MigrationSpec, needs: tuple[str, ...]) -> PlannedStep:
    """The step of one migration."""
    name = f"migrate {migration.name}" if len(wanted.migrate) > 1 else "migrate"
    kind = "contract" if migration.kind is MigrationKind.CONTRACT else "migrate"
    return PlannedStep(name, kind, KINDS[migration.kind], needs, {"migration": migration.name})


def migrations(wanted: AppSpec, downs: bool) -> tuple[list[MigrationSpec], list[MigrationSpec]]:
    """Those that run beside the old version, and those that run when it is gone; in their order.

    Behind one that runs alone, or behind `downs`, all do.
    """
    due = [m for m in wanted.migrate if m.kind is not MigrationKind.CONTRACT]
    first = next((n for n, migration in enumerate(due) if migration.kind.alone or downs), len(due))
    return due[:first], due[first:]


def job_migrations(wanted: AppSpec, last: str) -> list[PlannedStep]:
    """All of a job's, one after the other, after the step `last`: nobody runs meanwhile."""
    steps: list[PlannedStep] = []
    for migration in wanted.migrate:
        steps.append(migration_step(wanted, migration, (last,)))
        last = steps[-1].name
    return steps


def contraction(wanted: AppSpec, names: tuple[str, ...]) -> Plan:
    """The plan for migrations that had to wait until what serves had proved itself. It stays as it is."""
    reason = "what serves has proved itself: older versions need not run any more"
    steps = [PlannedStep("check", "check", "where the migrations run")]
    for migration in (m for m in wanted.migrate if m.name in names):
        steps.append(migration_step(wanted, migration, (steps[-1].name,)))
    return Plan(wanted.name, reason, tuple(steps))


def after(wanted: AppSpec, plan: Plan) -> dict[str, object]:
    """What a plan's migrations mean for later, as JSON: `rollback`, `after_probation`."""
    planned = [step.options.get("migration") for step in plan.steps if step.kind == "migrate"]
    due = [m for m in wanted.migrate if m.name in planned and m.kind.breaking]
    final = [m.name for m in due if m.kind is not MigrationKind.REVERSIBLE]
    told: dict[str, object] = {}
    if final:
        told["rollback"] = (
            f"not across {', '.join(final)}: a version that fails is kept, or the page stays up"
        )
    elif due and wanted.down:
        told["rollback"] = f"runs the down of {', '.join(m.name for m in reversed(due))} first"
    elif due:
        names = ", ".join(m.name for m in due)
        told["rollback"] = f"not across {names}: its down may run only with rollback: {{down: true}}"
    elif planned:
        told["rollback"] = "a flip: the version of before runs on what these leave behind"
    contracts = [m.name for m in wanted.migrate if m.kind is MigrationKind.CONTRACT]
    if contracts and not plan.contracts:
        told["after_probation"] = f"migrate {', '.join(contracts)}; from then on no older version runs"
    return told
