"""Whose releases may share files with others."""

from __future__ import annotations

import os
import pwd

import pytest

from agent.deploy.pinning import shares
from agent.domain.spec import AppSpec, RunSpec


def app(user: str) -> AppSpec:
    return AppSpec(name="web", version="1", run=RunSpec(command=("bin/web",), user=user))


def test_only_an_app_that_cannot_write_to_its_release_shares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert shares(app(other))
    for user in ("", "root", "a-user-nobody-knows"):
        assert not shares(app(user))
    assert not shares(AppSpec(name="docs", version="1"))  # its commands run as the agent
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not shares(app(other))
