from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.domain.errors import Permanent
from agent.process.environment import PATH, child_environment
from agent.process.users import User


def make(**more: Any) -> dict[str, str]:
    values: dict[str, Any] = {
        "app": "web", "version": "1.2", "box": "b1", "user": User("me"), "home": Path("/data/web"),
        "base": {"LANG": "C.UTF-8", "SECRET": "s", "LISTEN_FDS": "1", "EMPTYBOX_KEEPER_FD": "3", "TZ": "UTC"},
        "pass_env": (), "spec_env": {}, "directories": {}, "extra": {}, **more,
    }  # fmt: skip
    return child_environment(**values)


def test_nothing_of_the_agents_environment_reaches_a_program_unasked() -> None:
    assert make() == {
        "PATH": PATH,
        "HOME": "/data/web",
        "USER": "me",
        "LOGNAME": "me",
        "EMPTYBOX_APP": "web",
        "EMPTYBOX_VERSION": "1.2",
        "EMPTYBOX_BOX": "b1",
    }


def test_named_variables_are_passed_but_never_those_about_the_agent_itself() -> None:
    found = make(pass_env=("LANG", "TZ", "ABSENT", "LISTEN_FDS", "EMPTYBOX_KEEPER_FD"))
    assert (found["LANG"], found["TZ"]) == ("C.UTF-8", "UTC")
    assert not {"ABSENT", "LISTEN_FDS", "EMPTYBOX_KEEPER_FD", "SECRET"} & set(found)


def test_the_app_has_the_last_word_but_not_about_whose_child_it_is() -> None:
    found = make(
        pass_env=("LANG",),
        directories={"STATE_DIRECTORY": Path("/data/state"), "CACHE_DIRECTORY": Path("/data/cache")},
        extra={"PORT": "8080", "LANG": "x"},
        spec_env={"PORT": "9090", "PATH": "/opt/bin", "EMPTYBOX_BOX": "another"},
    )
    assert found["STATE_DIRECTORY"] == "/data/state"
    assert (found["PORT"], found["PATH"], found["LANG"]) == ("9090", "/opt/bin", "x")
    assert found["EMPTYBOX_BOX"] == "b1"


def test_home_is_the_users_own_where_there_is_one(tmp_path: Path) -> None:
    assert make(user=User("web", 1, 1, (), str(tmp_path)))["HOME"] == str(tmp_path)
    assert make(user=User("web", 1, 1, (), "/nonexistent"))["HOME"] == "/data/web"


@pytest.mark.parametrize("bad", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "secret\0"}])
def test_a_variable_no_program_can_be_given_is_refused_without_its_value(bad: dict[str, str]) -> None:
    with pytest.raises(Permanent) as caught:
        make(spec_env=bad)
    assert caught.value.reason == "EnvironmentInvalid"
    assert "secret" not in str(caught.value)
    assert "\0" not in str(caught.value)
