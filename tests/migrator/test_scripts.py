"""SQL files on real databases: ledger and schema agree, nothing runs twice, nothing is skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.postgres import PASSWORD
from tests.migrator.conftest import Place, ended, until

FIRST = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);\nINSERT INTO item VALUES (1, 'a;b');"


def test_a_first_install_and_an_upgrade_run_each_file_once_in_the_order_of_versions(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    place.put("V10__later.sql", "INSERT INTO item (id) VALUES (10)")
    place.put("V2__colour.sql", "ALTER TABLE item ADD COLUMN colour TEXT; -- the end")
    first = place.run()
    assert first.outcome == "done"
    assert first.applied == ["V1__items.sql", "V2__colour.sql", "V10__later.sql"]
    place.put("V11.1__more.sql", "INSERT INTO item (id) VALUES (11)")
    second = place.run(release="r2", version="2.0")
    assert (second.outcome, second.applied) == ("done", ["V11.1__more.sql"])
    again = place.run(release="r3", version="3.0")
    assert (again.outcome, again.applied) == ("done", [])
    assert place.query("SELECT id FROM item ORDER BY id") == [(1,), (10,), (11,)]
    assert [script for script, _ in place.history()] == [
        "V1__items.sql", "V2__colour.sql", "V10__later.sql", "V11.1__more.sql",
    ]  # fmt: skip


def test_a_failing_file_is_taken_back_whole_and_what_is_left_runs_once_it_is_mended(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    place.put("V2__bad.sql", "INSERT INTO item VALUES (2, 'two');\nINSERT INTO nowhere VALUES (1);")
    answer = place.run()
    assert (answer.outcome, answer.reason) == ("permanent", "MigrationFailed")
    assert "V2__bad.sql" in answer.message
    assert "nowhere" in answer.message
    assert not answer.unsure
    assert place.query("SELECT id FROM item") == [(1,)]
    assert place.history() == [("V1__items.sql", "done")]
    place.put("V2__bad.sql", "INSERT INTO item VALUES (2, 'two');")
    assert place.run().outcome == "done"
    assert place.query("SELECT id FROM item ORDER BY id") == [(1,), (2,)]


def test_an_edited_file_that_ran_already_is_an_error_that_says_so(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    assert place.run().outcome == "done"
    place.put("V1__items.sql", FIRST.replace("\n", "\r\n"))  # line ends are not what it says
    assert place.run().outcome == "done"
    place.put("V1__items.sql", FIRST + "-- and more")
    place.put("V2__x.sql", "INSERT INTO item VALUES (2, 'two')")
    answer = place.run(release="r2", version="2.0")
    assert (answer.outcome, answer.reason) == ("permanent", "MigrationEdited")
    assert "V1__items.sql was changed after it had run, by version 1.0 on box-1" in answer.message
    assert place.query("SELECT id FROM item") == [(1,)]


def test_files_that_do_not_go_with_what_has_run_are_refused(place: Place) -> None:
    place.put("V2__items.sql", FIRST)
    place.put("V3__x.sql", "INSERT INTO item VALUES (3, 'x')")
    assert place.run().outcome == "done"
    place.put("V1__late.sql", "INSERT INTO item VALUES (7, 'x')")
    assert place.run().reason == "MigrationOutOfOrder"
    (place.files / "V1__late.sql").unlink()
    (place.files / "V2__items.sql").unlink()
    assert place.run().reason == "MigrationMissing"
    place.put("V2__items.sql", FIRST)
    (place.files / "V3__x.sql").unlink()  # an older release: it knows nothing of V3, which it can bear
    assert place.run(release="r0", version="0.9").outcome == "done"
    place.put("notes.sql", "SELECT 1")
    assert place.run().reason == "MigrationsInvalid"
    assert place.query("SELECT count(*) FROM item") == [(2,)]


def test_an_older_release_is_told_that_it_cannot_run_on_what_is_irreversible(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    assert place.run().outcome == "done"
    place.put("V2__x.sql", "INSERT INTO item VALUES (2, 'x')")
    answer = place.run(kind="irreversible", release="r2", version="2.0")
    assert answer.breaking == [["r2", "2.0", "irreversible"]]
    (place.files / "V2__x.sql").unlink()
    older = place.run(release="r1")
    assert (older.outcome, older.reason) == ("operator", "SchemaTooNew")


def test_a_repeatable_file_runs_whenever_it_has_changed(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    place.put("R__rows.sql", "INSERT INTO item (name) SELECT name FROM item WHERE 1 = 0")
    for _ in range(2):
        assert place.run().outcome == "done"
    place.put("R__rows.sql", "DELETE FROM item")
    assert place.run().outcome == "done"
    assert [script for script, _ in place.history()] == ["V1__items.sql", "R__rows.sql", "R__rows.sql"]


def test_a_database_with_tables_needs_a_baseline(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    place.put("V2__x.sql", "INSERT INTO item VALUES (2, 'x')")
    place.query("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
    answer = place.run()
    assert (answer.outcome, answer.reason) == ("operator", "BaselineMissing")
    assert "item" in answer.message
    assert place.run(baseline="1").outcome == "done"
    assert place.run(baseline="1").outcome == "done"
    assert place.query("SELECT id FROM item") == [(2,)]


def test_the_undo_files_of_a_release_take_back_what_it_did_newest_first(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    assert place.run().outcome == "done"
    two = {"release": "r2", "version": "2.0", "kind": "reversible"}
    place.put("V2__two.sql", "INSERT INTO item VALUES (2, 'x')")
    place.put("V3__three.sql", "UPDATE item SET name = 'y' WHERE id = 2")
    place.put("U3__three.sql", "UPDATE item SET name = 'x' WHERE id = 2")
    assert place.run(**two).outcome == "done"
    answer = place.run(mode="down", undo=("r2",), **two)
    assert (answer.outcome, answer.reason) == ("operator", "NoWayBack")  # U2 is not there: nothing is undone
    place.put("U2__two.sql", "DELETE FROM item WHERE id = 2 AND name = 'x'")
    answer = place.run(mode="down", undo=("r2",), **two)
    assert (answer.outcome, answer.applied, answer.breaking) == ("done", [], [])
    assert place.query("SELECT id FROM item") == [(1,)]
    assert place.run(**two).outcome == "done"  # and forward again
    assert place.query("SELECT id, name FROM item WHERE id = 2") == [(2, "y")]


def test_two_at_once_run_each_file_once(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    place.put("V2__two.sql", "INSERT INTO item VALUES (2, 'x')")
    outputs = [ended(process) for process in [place.begin(), place.begin(host="box-2")]]
    assert [answer.outcome for _, answer in outputs] == ["done", "done"]
    assert place.history() == [("V1__items.sql", "done"), ("V2__two.sql", "done")]
    assert place.query("SELECT id FROM item ORDER BY id") == [(1,), (2,)]


def test_whoever_waits_for_another_says_for_whom(place: Place, tmp_path: Path) -> None:
    place.put("V1__items.sql", FIRST)
    hold, said = tmp_path / "hold", tmp_path / "said"
    hold.touch()
    text = f"echo x > {said}; while test -e {hold}; do sleep 0.02; done"
    first = place.begin(sql="", command=("/bin/sh", "-c", text), name="other", app="shop")
    until(said.exists)
    second = place.begin()
    assert second.stdout is not None
    line = second.stdout.readline()
    hold.unlink()
    assert line.startswith("waiting for emptybox shop@box-1: other of 1.0")
    for process in (first, second):
        assert ended(process)[1].outcome == "done"
    assert place.query("SELECT id FROM item") == [(1,)]


def test_who_waits_too_long_is_told_for_whom_and_tries_later(place: Place, tmp_path: Path) -> None:
    said = tmp_path / "said"
    first = place.begin(sql="", command=("/bin/sh", "-c", f"echo x > {said}; exec sleep 600"))
    until(said.exists)
    answer = place.run(wait=0.1)
    assert (answer.outcome, answer.reason, answer.unsure) == ("transient", "DatabaseUnavailable", False)
    assert "still waiting for emptybox web@box-1: schema of 1.0" in answer.message
    first.terminate()
    first.communicate()


def test_kill_9_in_the_middle_leaves_nothing_half_done(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    assert place.run().outcome == "done"
    slow = "SELECT pg_sleep(60);" if place.server else _slow(50_000_000)
    place.put("V2__slow.sql", f"INSERT INTO item VALUES (2, 'x');\n{slow}")
    process = place.begin()
    until(lambda: _is_at_it(place, process, "V2__slow.sql"))
    process.kill()
    process.communicate()
    place.put("V2__slow.sql", "INSERT INTO item VALUES (2, 'x');")
    if place.server is not None:  # the server notices only when it has something to say
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'emptybox%'"
        place.query(sql)
    answer = place.run(mode="look")
    assert (answer.applied, answer.pending) == (["V1__items.sql"], 1)
    assert place.run().outcome == "done"
    assert place.query("SELECT id FROM item ORDER BY id") == [(1,), (2,)]
    assert place.history() == [("V1__items.sql", "done"), ("V2__slow.sql", "done")]


def test_kill_9_of_the_database_in_the_middle_is_tried_again_and_runs_once(pg: Place) -> None:
    assert pg.server is not None
    pg.put("V1__items.sql", FIRST)
    pg.put("V2__slow.sql", "INSERT INTO item VALUES (2, 'x'); SELECT pg_sleep(60);")
    process = pg.begin()
    until(lambda: _is_at_it(pg, process, "V2__slow.sql"))
    pg.server.kill()
    _, answer = ended(process)
    assert (answer.outcome, answer.reason) == ("transient", "DatabaseUnavailable")
    assert pg.run().outcome == "transient"  # it is still away
    pg.server.start()
    pg.put("V2__slow.sql", "INSERT INTO item VALUES (2, 'x');")
    assert pg.run().outcome == "done"
    assert pg.query("SELECT id FROM item ORDER BY id") == [(1,), (2,)]
    assert pg.history() == [("V1__items.sql", "done"), ("V2__slow.sql", "done")]


def test_a_file_too_slow_for_its_timeout_is_taken_back(place: Place) -> None:
    place.put("V1__items.sql", FIRST)
    slow = "SELECT pg_sleep(60);" if place.server else _slow(50_000_000)
    place.put("V2__slow.sql", f"INSERT INTO item VALUES (2, 'x');\n{slow}")
    answer = place.run(timeout=0.5)
    assert (answer.outcome, answer.reason) == ("permanent", "MigrationFailed")
    assert place.query("SELECT id FROM item") == [(1,)]


def test_an_index_is_built_without_a_transaction_where_the_file_beside_says_so(pg: Place) -> None:
    pg.put("V1__items.sql", FIRST)
    text = "/* ; */ DROP INDEX IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON item (name); -- ;\n"
    pg.put("V2__index.sql", text)
    answer = pg.run()
    assert answer.outcome == "permanent"
    assert "transaction" in answer.message
    pg.put("V2__index.sql.conf", "executeInTransaction=false\n")
    assert pg.run().outcome == "done"
    assert pg.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


def test_an_error_names_the_line(pg: Place) -> None:
    pg.put("V1__items.sql", "CREATE TABLE item (id INTEGER);\n\nINSERT INTO nowhere VALUES (1);")
    assert "in line 3" in pg.run().message


def test_a_file_that_ends_its_own_transaction_is_told_how_to_say_so(place: Place) -> None:
    place.put("V1__items.sql", "CREATE TABLE item (id INTEGER); COMMIT;")
    answer = place.run()
    assert (answer.outcome, answer.unsure) == ("permanent", False)
    assert "executeInTransaction=false" in answer.message


def test_the_password_stands_in_no_list_of_processes_and_in_no_output(pg: Place) -> None:
    pg.put("V1__slow.sql", "SELECT pg_sleep(60);")
    process = pg.begin()
    until(lambda: _is_at_it(pg, process))
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    process.terminate()
    output, _ = process.communicate()
    assert "V1__slow.sql" in output
    assert PASSWORD not in told
    assert PASSWORD not in output


def test_a_database_that_is_away_or_unknown_is_told_apart(place: Place) -> None:
    assert place.run(database="postgresql://box@127.0.0.1:1/x").outcome == "transient"
    assert place.run(database="sqlite:/nowhere/at/all.db").reason == "DatabaseUnusable"
    assert place.run(database="mysql://x/y").reason == "DatabaseUnusable"


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://host/a.db"])
def test_a_url_that_names_no_file_is_refused(sqlite: Place, url: str) -> None:
    assert sqlite.run(database=url).reason == "DatabaseUnusable"


def _slow(steps: int) -> str:
    """Something that takes SQLite a second or more."""
    return (
        "CREATE TABLE slow AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {steps}) SELECT count(*) AS c FROM n;"
    )


def _is_at_it(place: Place, process: subprocess.Popen[str], script: str = "") -> bool:
    """Whether a migration is in the middle of a file."""
    assert process.poll() is None, process.communicate()
    if place.server is not None:
        sql = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'emptybox%'"
        sql += " AND query LIKE '%pg_sleep%'"
        return bool(place.query(f"{sql} AND state = 'active' AND datname = current_database()"))
    journal = place.files.parent / "app.db-journal"
    return journal.exists() and journal.stat().st_size > 0 if not script else _journal_of(place, script)


def _journal_of(place: Place, script: str) -> bool:
    return (place.files.parent / "app.db-journal").exists() and (place.files / script).exists()
