import errno
import io
import os
import sqlite3
import time
from pathlib import Path

import pytest
from rich.console import Console

from steersman.experiments.comparison import store as module
from steersman.experiments.comparison.runs import job_table, jobs_named
from steersman.experiments.comparison.store import Job, Store, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s")
    store.add([Job("a", "run", "{}")])
    return store


def test_a_job_is_claimed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.claim("a") and store.get("a").state == "running"
    monkeypatch.setattr(module, "_me", lambda: "elsewhere:1")
    assert not store.claim("a")
    store.finish("a")  # only the owner may finish
    assert store.get("a").state == "running"


def test_a_lease_that_ran_out_is_free(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_me", lambda: "elsewhere:1")
    assert store.claim("a")
    monkeypatch.undo()
    assert not store.claim("a")
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + module.LEASE_S + 1)
    assert store.claim("a")


def test_a_dead_worker_of_this_machine_is_free_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = module._me().rpartition(":")[0]
    monkeypatch.setattr(module, "_me", lambda: f"{host}:{child}")
    assert store.claim("a")
    monkeypatch.undo()
    assert store.claim("a")


def test_states_survive_and_failures_wait_again(store: Store) -> None:
    store.claim("a")
    store.report("a", 0.5, "half")
    assert (store.get("a").fraction, store.get("a").message) == (0.5, "half")
    store.finish("a", "ValueError: no")
    again = Store(store.folder)
    assert again.get("a").error == "ValueError: no"
    again.add([Job("a", "run", "{}")])
    assert again.get("a").state == "waiting"
    again.claim("a")
    again.finish("a", "ValidationError: the specification cannot be read")
    again.add([Job("a", "run", '{"mended": 1}')])
    assert again.get("a").spec == '{"mended": 1}'
    again.claim("a")
    again.finish("a")
    again.add([Job("a", "run", "{}")])
    assert again.get("a").state == "done"


@pytest.mark.parametrize("how", ["lost", "emptied", "no table", "no database", "torn page"])
def test_a_lost_or_damaged_database_is_made_again_from_the_files(tmp_path: Path, how: str) -> None:
    store = Store(tmp_path)
    store.add([Job(f"{i:04}", "run", "{}" * 99, f"question {i}") for i in range(200)])
    for i in (7, 8):
        store.claim(f"{i:04}")
        store.file(f"{i:04}", ".npz").write_bytes(b"result")
        store.finish(f"{i:04}")
    store.file("0008", ".done.json").write_text("torn")
    path = tmp_path / "store.sqlite"
    content = path.read_bytes()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if how == "emptied":
        path.write_bytes(b"")
    if how == "no table":
        sqlite3.connect(path).close()
    if how == "no database":
        path.write_bytes(b"this is not a database, but long enough to look at" * 100)
    if how == "torn page":
        path.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    again = Store(tmp_path)
    assert [(job.key, job.state, job.identity) for job in again.jobs()] == [("0007", "done", "question 7")]
    assert again.sound("0007") and bool(list(tmp_path.glob("*.damaged-*"))) == (how in ("no database", "torn page"))


def test_a_store_of_the_first_layout_is_taken_over_and_one_of_a_later_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute(module._SCHEMA)
        db.execute("INSERT INTO jobs (key, kind, spec, state) VALUES ('a', 'run', '{}', 'done')")
    db.close()
    store = Store(tmp_path)
    assert store.get("a").state == "done" and store.older([Job("b", "run", "{}", "question")]) == []
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute(f"PRAGMA user_version={module.VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"layout 3 and this Steersman knows 2; update it"):
        Store(tmp_path)


def test_a_result_that_was_tampered_with_is_not_believed(store: Store) -> None:
    store.claim("a")
    store.file("a", ".npz").write_bytes(b"result")
    store.finish("a")
    assert store.sound("a")
    store.file("a", ".npz").write_bytes(b"Result")
    assert not store.sound("a") and store.get("a").state == "waiting"
    store.claim("a")
    store.finish("a")
    store.file("a", ".done.json").write_text('{"sha256": {}}')
    assert not store.sound("a"), "a job without any file has no result"


def test_what_older_code_answered_is_known_as_such(store: Store) -> None:
    store.add([Job("old", "run", "{}", "question"), Job("open", "run", "{}", "other question")])
    store.claim("old")
    store.finish("old")
    asked = [
        Job("new", "run", "{}", "question"),
        Job("new2", "run", "{}", "other question"),
        Job("old", "run", "{}", "question"),
    ]
    assert [job.key for job in store.older(asked)] == ["new"]


def test_failures_of_older_code_are_older_as_soon_as_newer_code_has_tried(store: Store) -> None:
    """Questions: failed and failed again, failed and then answered, answered and then failed, failed once, nameless."""
    story = [
        ("a1", "a", "failed"), ("b1", "b", "failed"), ("c1", "c", "done"), ("d1", "d", "failed"),
        ("a2", "a", "failed"), ("b2", "b", "done"), ("c2", "c", "failed"), ("e1", "", "failed"), ("e2", "", "failed"),
    ]  # fmt: skip
    for key, identity, end in story:
        store.add([Job(key, "run", '{"environment": {"id": "p"}}', identity)])
        assert store.claim(key)
        store.file(key, ".npz").write_bytes(b"result")
        store.finish(key, "" if end == "done" else "an error")
        time.sleep(0.002)
    assert [job.key for job in jobs_named(store, ["older"])] == ["a1", "b1"]
    assert {job.key for job in jobs_named(store, ["failed"])} == {key for key, _, end in story if end == "failed"}
    store.add([Job("a3", "run", '{"environment": {"id": "p"}}', "a")])
    assert [job.key for job in jobs_named(store, ["older"])] == ["a1", "b1"], "a job that waits has tried nothing"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(job_table(store))
    lines = {line.split()[0]: line for line in console.export_text().splitlines() if line.split()}
    assert "failed, older" in lines["a1"] and "older" not in lines["a2"] and "older" not in lines["c1"]


def test_a_call_that_was_broken_off_in_this_process_is_taken_over_by_the_next(store: Store) -> None:
    assert store.claim("a") and not store.claim("a")
    module._HELD.clear()  # what a new interpreter, or an exception, leaves
    assert store.claim("a")
    store.release("a")
    assert store.get("a").state == "waiting"


def test_deleted_jobs_leave_nothing(store: Store) -> None:
    store.claim("a")
    store.file("a", ".training").mkdir()
    (store.file("a", ".training") / "log").touch()
    store.file("a", ".npz").write_bytes(b"result")
    store.finish("a")
    store.delete(["a"])
    assert store.jobs() == [] and not list(store.folder.glob("a.*"))


def test_a_full_disk_is_said_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(module.sqlite3, "connect", full)
    with pytest.raises(StoreError, match=r"disk of .* is full; free some space"):
        store.get("a")
    assert module.disk_full(OSError(errno.ENOSPC, "No space left on device")) and not module.disk_full(OSError(2, "no"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write to .*--out"):
        Store(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write to"):
        Store(tmp_path)


def test_unknown_job(store: Store) -> None:
    with pytest.raises(KeyError, match="no job b"):
        store.get("b")
    assert store.jobs(["a"]) == [store.get("a")]
    with pytest.raises(KeyError, match="b"):
        store.jobs(["a", "b"])
