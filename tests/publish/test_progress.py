"""Progress is told now and then, and never in what programs read."""

from __future__ import annotations

import pytest

from agent.publish import progress


def test_what_is_done_at_once_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.telling("packing") as tell:
        tell(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG", 0.0)
    with progress.telling("packing") as tell:
        tell(1, 4)
        tell(5 << 20, 0)
    assert capsys.readouterr() == ("", "packing: 25 %\npacking: 5 MiB\n")


def test_a_terminal_gets_one_line_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TERMINAL", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.telling("packing") as tell:
        tell(1, 4)
    assert capsys.readouterr() == ("", "\r\x1b[Kpacking: 25 %\r\x1b[K")
