from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.source.git.credentials import basic, read_login


@pytest.mark.parametrize(
    ("content", "login"),
    [
        ("ada:secret\n", ("ada", "secret")),
        ("ada:with:colons\r\n", ("ada", "with:colons")),
        ("  ghp_token  \n", ("x-access-token", "ghp_token")),
        (":empty-user", ("", "empty-user")),
    ],
)
def test_a_line_is_a_token_or_user_and_password(tmp_path: Path, content: str, login: tuple[str, str]) -> None:
    file = tmp_path / "login"
    file.write_text(content)
    assert read_login(file) == login


@pytest.mark.parametrize("content", [b"", b"\n \n", b"two\nlines", b"\xff\xfe", b"x" * 9000, b"a\0b"])
def test_unusable_content_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "login"
    file.write_bytes(content)
    with pytest.raises(OperatorNeeded) as caught:
        read_login(file)
    assert caught.value.reason == "GitAuth"
    assert str(file) in str(caught.value)
    assert "lines" not in str(caught.value)


def test_a_missing_file_a_directory_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(OperatorNeeded, match="credentials file"):
            read_login(path)


def test_the_header_is_that_of_basic_authentication() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
