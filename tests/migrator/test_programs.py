"""Commands that migrate, once for a release: of our own, and the tools people use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.migrator.conftest import Place, ended, until


def test_a_command_runs_once_for_a_release_and_again_for_the_next(place: Place, tmp_path: Path) -> None:
    said = tmp_path / "said"
    for release in ("r1", "r1", "r2", "r1"):
        answer = place.command(f"echo {release} >> {said}", release=release)
        assert (answer.outcome, answer.applied) == ("done", ["schema"])
    assert said.read_text().split() == ["r1", "r2"]


def test_a_failing_command_runs_again_and_75_means_that_nothing_was_done(
    place: Place, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    later = place.command(f"echo x >> {said}; exit 75")
    assert (later.outcome, later.unsure) == ("later", False)
    failed = place.command("exit 3")
    assert (failed.outcome, failed.reason, failed.unsure) == ("permanent", "MigrationFailed", True)
    assert "exit code 3" in failed.message
    assert place.command(f"echo y >> {said}").outcome == "done"
    assert said.read_text().split() == ["x", "y"]
    assert [state for _, state in place.history()] == ["failed", "failed", "done"]


def test_its_down_lets_it_run_again(place: Place, tmp_path: Path) -> None:
    said = tmp_path / "said"
    up = f"echo up >> {said}"
    assert place.command(up, kind="reversible").breaking == [["r1", "1.0", "reversible"]]
    assert (
        place.command(f"echo down >> {said}", kind="reversible", mode="down", undo=("r1",)).outcome == "done"
    )
    assert place.command(up, kind="reversible").outcome == "done"
    assert said.read_text().split() == ["up", "down", "up"]


@pytest.mark.parametrize("who", ["runner", "command"])
def test_one_that_was_killed_runs_again_whole(place: Place, tmp_path: Path, who: str) -> None:
    said, hold = tmp_path / "said", tmp_path / "hold"
    hold.touch()
    text = f"echo $$ >> {said}; while test -e {hold}; do sleep 0.05; done; echo end >> {said}"
    process = place.begin(sql="", command=("/bin/sh", "-c", text))
    until(lambda: said.exists() and said.read_text().endswith("\n"))
    pid = int(said.read_text())
    if who == "runner":
        process.kill()
        subprocess.run(["kill", "-9", str(pid)], check=True)  # the keeper does that: they are one group
        process.communicate()
    else:
        subprocess.run(["kill", "-9", str(pid)], check=True)
        _, answer = ended(process)
        assert "signal 9" in answer.message
    hold.unlink()
    assert place.command(text).outcome == "done"
    assert place.command(text).outcome == "done"
    assert said.read_text().split()[2:] == ["end"]


def test_a_command_without_its_lock_is_ended_so_that_nobody_runs_beside_the_next(
    pg: Place, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    process = pg.begin(sql="", command=("/bin/sh", "-c", f"echo $$ >> {said}; exec sleep 600"))
    until(lambda: said.exists() and said.read_text().endswith("\n"))
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'emptybox%'"
    pg.query(f"{sql} AND datname = current_database()")
    _, answer = ended(process)
    assert (answer.outcome, answer.unsure) == ("transient", True)
    assert not Path(f"/proc/{int(said.read_text())}").exists()


# -- tools that people use ------------------------------------------------------------------------------


def _tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_dbmate_migrates_once_for_a_release(pg: Place, tmp_path: Path) -> None:
    files = tmp_path / "db"
    files.mkdir()
    (files / "001_items.sql").write_text("-- migrate:up\nCREATE TABLE item (id INTEGER);\n-- migrate:down\n")
    command = (_tool("dbmate"), "--no-dump-schema", "--migrations-dir", str(files), "up")
    url = f"{pg.url}?sslmode=disable"
    text = f"DATABASE_URL='{url}' exec {' '.join(command)}"
    for _ in range(2):
        assert pg.command(text).outcome == "done"
    (files / "002_bad.sql").write_text(
        "-- migrate:up\nINSERT INTO item VALUES (2); INSERT INTO nowhere VALUES (1);\n-- migrate:down\n"
    )
    assert pg.command(text, release="r2").reason == "MigrationFailed"
    assert pg.query("SELECT * FROM item") == []
    (files / "002_bad.sql").write_text("-- migrate:up\nINSERT INTO item VALUES (2);\n-- migrate:down\n")
    assert pg.command(text, release="r3").outcome == "done"
    assert pg.query("SELECT * FROM item") == [(2,)]


ENV = """from alembic import context
from sqlalchemy import create_engine
import os
with create_engine(os.environ["ALEMBIC_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
VERSION = """from alembic import op
revision, down_revision = "{revision}", {before}
def upgrade():
    op.execute("{up}")
def downgrade():
    op.execute("{down}")
"""


def test_alembic_migrates_and_goes_back(sqlite: Place, tmp_path: Path) -> None:
    versions = tmp_path / "alembic" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "alembic" / "env.py").write_text(ENV)
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = {tmp_path}/alembic\n")
    one = {
        "revision": "a1",
        "before": None,
        "up": "CREATE TABLE item (id INTEGER)",
        "down": "DROP TABLE item",
    }
    (versions / "a1.py").write_text(VERSION.format(**one))
    url = sqlite.url.replace("sqlite:", "sqlite:///")
    begin = f"ALEMBIC_URL={url} {_tool('alembic')} -c {tmp_path}/alembic.ini"
    for _ in range(2):
        assert sqlite.command(f"{begin} upgrade head", kind="reversible").outcome == "done"
    assert sqlite.query("SELECT * FROM item") == []
    down = sqlite.command(f"{begin} downgrade base", kind="reversible", mode="down", undo=("r1",))
    assert down.outcome == "done"
    assert sqlite.query("SELECT name FROM sqlite_master WHERE name = 'item'") == []
