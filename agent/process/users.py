"""Who a program of an app runs as: what the operator allows, looked up on this host."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.domain.errors import OperatorNeeded

DYNAMIC = "dynamic"
DYNAMIC_IDS = range(61184, 65520)  # those that systemd takes for the same; neither takes one in use


@dataclass(frozen=True, slots=True)
class User:
    """Who a program runs as. uid and gid None: the agent's own, with its groups; home "" likewise."""

    name: str
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    home: str = ""


def find_user(
    name: str,
    allowed: Collection[str],
    group: str = "",
    groups: Collection[str] = (),
    dynamic: Callable[[], int] | None = None,
) -> User:
    """Look a user up, by name or number; "" and the agent's own name are the agent's own.

    `allowed` are the names the operator lets apps run as. Where some are named and the agent is root, no app
    is root but by that name. `group` takes the place of the user's first group: one it is a member of, or
    one of `groups`, which the operator lets apps have. `dynamic` gives the number for the name of that kind.
    Raises OperatorNeeded (UserNotAllowed, UserUnknown, UserNotPossible).
    """
    user = _find(name, allowed, dynamic)
    return user if not group else _with_group(user, group, groups)


def _find(name: str, allowed: Collection[str], dynamic: Callable[[], int] | None) -> User:
    own = _name_of(os.geteuid())
    if name == DYNAMIC and dynamic is not None:
        _need_root(own, name)
        number = dynamic()
        return User(name, number, number)
    entry = _entry(name)
    if name in ("", own) or (entry is not None and entry.pw_uid == os.geteuid()):
        if os.geteuid() == 0 and allowed and own not in allowed:
            raise OperatorNeeded(
                "UserNotAllowed",
                f"apps may not run as {own} here, and this one names no other user",
                remedy=f"name a user in run.user: {', '.join(allowed)}",
            )
        return User(own)
    if not _allowed(name, entry, allowed):
        raise OperatorNeeded(
            "UserNotAllowed",
            f"apps may not run as user {name!r}",
            remedy=f"start the agent with --allow-user {name}, or take another user",
        )
    if entry is None and not _number(name):
        raise OperatorNeeded(
            "UserUnknown", f"there is no user {name!r} here", remedy="add the user to this machine or image"
        )
    _need_root(own, name)
    if entry is None:  # in a container a number is enough; its group has the same
        return User(name, int(name), int(name))
    return User(
        entry.pw_name, entry.pw_uid, entry.pw_gid,
        tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)), entry.pw_dir,
    )  # fmt: skip


def _number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if _number(name) else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        return None


def _allowed(name: str, entry: pwd.struct_passwd | None, allowed: Collection[str]) -> bool:
    """By the word itself, or because one that is allowed is the same user under its other name."""
    if name in allowed:
        return True
    number = str(entry.pw_uid) if entry is not None else name
    return number in allowed or (entry is not None and entry.pw_name in allowed)


def _need_root(own: str, name: str) -> None:
    if os.geteuid() != 0:
        raise OperatorNeeded(
            "UserNotPossible",
            f"the agent runs as {own} and cannot start programs as {name!r}",
            remedy=f"run the agent as root, or as {name} and leave the user out",
        )


def _with_group(user: User, group: str, allowed: Collection[str]) -> User:
    try:
        entry = grp.getgrgid(int(group)) if _number(group) else grp.getgrnam(group)
        number, name = entry.gr_gid, entry.gr_name
    except (KeyError, ValueError, OverflowError):
        if not _number(group):
            raise OperatorNeeded(
                "UserUnknown", f"there is no group {group!r} here", remedy="add it to this machine or image"
            ) from None
        number, name = int(group), group
    own = user.uid is None
    member = number in ((*os.getgroups(), os.getegid()) if own else (*user.groups, user.gid))
    if not member and not {group, name, str(number)} & set(allowed):
        raise OperatorNeeded(
            "UserNotAllowed",
            f"user {user.name} is no member of group {group!r}",
            remedy=f"start the agent with --allow-group {group}, or add the user to the group",
        )
    if own:
        _need_root(user.name, f"{user.name}:{group}")
        return User(user.name, os.geteuid(), number, tuple(os.getgroups()), user.home)
    return User(user.name, user.uid, number, user.groups, user.home)


def dynamic_id(app: str, taken: Collection[int]) -> int:
    """A number for an app that nobody has: the same each time, as long as it is free.

    Raises OperatorNeeded("UserNotPossible") when all are taken.
    """
    start = int.from_bytes(hashlib.sha256(app.encode()).digest()[:4], "big")
    for step in range(len(DYNAMIC_IDS)):
        number = DYNAMIC_IDS[(start + step) % len(DYNAMIC_IDS)]
        if number not in taken and _entry(str(number)) is None:
            return number
    raise OperatorNeeded("UserNotPossible", "all dynamic users are taken", remedy="name a user in run.user")


def is_own(name: str) -> bool:
    """Whether programs of user `name` run as the agent's own; also said of one that nobody knows."""
    if name in ("", _name_of(os.geteuid())):
        return True
    if name == DYNAMIC:
        return False
    entry = _entry(name)
    return not _number(name) if entry is None else entry.pw_uid == os.geteuid()


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a number nobody has a name for
        return str(uid)
