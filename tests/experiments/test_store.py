import os
import time
from pathlib import Path

import pytest

from steersman.experiments import store as module
from steersman.experiments.store import Job, Store, StoreError


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
    again.finish("a")
    again.add([Job("a", "run", "{}")])
    assert again.get("a").state == "done"


def test_a_corrupt_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"this is not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match=r"not a readable store.*move it away"):
        Store(tmp_path)


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
