"""What the agent can ask of the keeper: one function a verb of the protocol."""

from __future__ import annotations

import errno

from agent.keeper.children import Child, SpawnError
from agent.keeper.wire import VERSION, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from agent.keeper.link import Link
    from agent.keeper.loop import Keeper

NOTES_MAX = 512 << 10  # characters in all, so that `hello` fits a frame however they are escaped


def answer(keeper: Keeper, link: Link, message: dict[str, Any], given: Sequence[int] = ()) -> None:
    """Do what a request asks, and answer it; one that makes no sense is answered with an error.

    `given` are the descriptors that came with it, the caller's to close.
    """
    number = message.get("id")
    try:
        if message["do"] == "spawn":  # answered once the program runs
            keeper.started(_spawn(keeper, link, message, given))
            return
        done, descriptors = VERBS[message["do"]](keeper, message)
        link.send({"id": number, "ok": done}, descriptors)
    except (OSError, LookupError, ValueError, TypeError, OverflowError, ProtocolError) as error:
        refuse(link, number, error)


def refuse(link: Link, number: object, error: Exception) -> None:
    """Answer with an error."""
    told: dict[str, Any] = {"text": f"{type(error).__name__}: {error}"}
    if isinstance(error, OSError):
        told = {"text": error.strerror or str(error), "errno": error.errno}
    if isinstance(error, SpawnError):
        told["stage"] = error.stage
    link.send({"id": number, "error": told})


def _hello(keeper: Keeper, _message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    children = [child.record() for child in keeper.children.values()]
    held = {"children": children, "slots": keeper.slots.records(), "notes": keeper.notes}
    held["deaths"] = keeper.deaths.record()
    return {"version": VERSION, "pid": keeper.pid, "stdio": True, **held}, []


def _spawn(keeper: Keeper, link: Link, message: dict[str, Any], given: Sequence[int]) -> Child:
    request = message["child"]
    if request["child"] in keeper.children:
        raise OSError(errno.EEXIST, f"{request['child']} is there already")
    _check_room(keeper, len(request["child"]) + len(request["note"]))
    confine = request.get("confine") or {}
    if beside := confine.get("join"):
        if not keeper.children[beside].running:
            raise LookupError(f"{beside} has ended")
        confine["join"] = keeper.children[beside].pid
    if len(given) not in (0, 3):
        raise ValueError("descriptors 0, 1 and 2 are given together")
    return Child(request, keeper.slots, keeper.outlets, (link, message.get("id")), given)


def _signal(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    child = keeper.children[message["child"]]
    return {"delivered": child.kill(int(message["signal"]), group=bool(message["group"]))}, []


def _tail(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    child = keeper.children[message["child"]]
    keeper.hear(child, drain=True)
    return {"lines": child.output.tail(int(message["lines"]))}, []


def _forget(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    child = keeper.children.get(message["child"])
    if child is not None and child.running:
        raise OSError(errno.EBUSY, f"{child.name} still runs")
    if child is not None:
        keeper.forget(child)
    return {}, []


def _open(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    numbers = [int(message[name]) for name in ("port", "count", "backlog")]
    record, descriptors = keeper.slots.open(message["key"], message["address"], *numbers)
    return {"slots": record}, descriptors


def _close(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    keeper.slots.close(message["key"])
    return {}, []


def _note(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    key, value = message["key"], message["value"]
    if value is None:
        keeper.notes.pop(key, None)
    else:
        _check_room(keeper, len(key) + len(value) - len(keeper.notes.get(key, "")))
        keeper.notes[key] = value
    return {}, []


def _ready(keeper: Keeper, _message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    keeper.manager.ready()
    return {}, []


def _alive(_keeper: Keeper, _message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    return {}, []  # that it was said is all


def _stopping(keeper: Keeper, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    keeper.leave(float(message["deadline"]), int(message.get("code") or 0))
    return {}, []


def _check_room(keeper: Keeper, more: int) -> None:
    held = sum(len(key) + len(value) for key, value in keeper.notes.items())
    held += sum(len(child.name) + len(child.note) for child in keeper.children.values())
    if held + more > NOTES_MAX:
        raise OSError(errno.E2BIG, f"notes are limited to {NOTES_MAX} characters")


VERBS: dict[str, Callable[[Keeper, dict[str, Any]], tuple[dict[str, Any], list[int]]]] = {
    "hello": _hello,
    "signal": _signal,
    "tail": _tail,
    "forget": _forget,
    "open": _open,
    "close": _close,
    "note": _note,
    "ready": _ready,
    "alive": _alive,
    "stopping": _stopping,
}
