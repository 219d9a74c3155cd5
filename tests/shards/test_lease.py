import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from shards import lease as lease_module
from shards.errors import ShardError
from shards.lease import EXPIRES_S, LEASE_NAME, Holder, check_token, hold_lease
from shards.store import Store, open_store


class FakeClock:
    """Time that passes only by sleeping; ``during`` is called in each sleep."""

    def __init__(self, during=lambda: None) -> None:
        self.now, self.during = 0.0, during

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during()


ELSEWHERE = Holder("t0", "other-host", "another boot", 17, 99)


def put(store: Store, holder: Holder) -> None:
    store.write(LEASE_NAME, json.dumps(asdict(holder)).encode())


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    name = tmp_path.name.replace("_", "-")
    return open_store(tmp_path / "set" if request.param == "local" else f"memory://lease-{name}")


def test_a_lease_is_there_while_held_and_gone_afterwards(store) -> None:
    with hold_lease(store) as lease:
        assert store.exists(LEASE_NAME)
        lease.check()
        check_token(store, lease.token)
    assert store.names() == []


def test_a_second_writer_is_refused_while_the_first_lives(store) -> None:
    with (
        hold_lease(store),
        pytest.raises(ShardError, match=r"process \d+ on .* is writing here"),
        hold_lease(store),
    ):
        pass


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path) -> None:
    die = (
        "import os, signal; from shards.lease import hold_lease; from shards.store import open_store\n"
        f"with hold_lease(open_store({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", die], check=False).returncode == -9
    assert open_store(tmp_path).exists(LEASE_NAME)
    clock = FakeClock()
    with hold_lease(open_store(tmp_path), clock=clock):
        assert clock.now < 1


def test_a_pid_given_out_again_is_not_the_holder(store) -> None:
    with hold_lease(store):
        held = Holder(**json.loads(store.read(LEASE_NAME)))
    put(store, replace(held, token="old", born=held.born - 1))
    with hold_lease(store, clock=FakeClock()):
        pass


def test_a_silent_holder_elsewhere_is_waited_for_and_then_replaced(store) -> None:
    put(store, ELSEWHERE)
    clock, said = FakeClock(), []
    with hold_lease(store, say=said.append, clock=clock):
        assert clock.now >= EXPIRES_S
    assert len(said) == 1
    assert "process 17 on other-host" in said[0]


def test_a_holder_elsewhere_that_renews_is_not_replaced(store) -> None:
    put(store, ELSEWHERE)
    clock = FakeClock(lambda: put(store, replace(ELSEWHERE, renewals=1)))
    with pytest.raises(ShardError, match="is writing here"), hold_lease(store, clock=clock):
        pass
    assert clock.now < EXPIRES_S


def test_a_holder_elsewhere_that_ends_makes_room(store) -> None:
    put(store, ELSEWHERE)
    clock = FakeClock(lambda: store.remove(LEASE_NAME) if clock.now == 3.0 else None)
    with hold_lease(store, clock=clock):
        assert clock.now == 3.0


def test_a_holder_that_was_replaced_is_told_and_leaves_the_others_lease(store) -> None:
    with hold_lease(store) as lease:
        put(store, ELSEWHERE)
        with pytest.raises(ShardError, match="held by process 17 on other-host"):
            check_token(store, lease.token)
        lease.renew()
        with pytest.raises(ShardError, match="another writer took over"):
            lease.check()
    assert json.loads(store.read(LEASE_NAME))["token"] == "t0"


def test_a_holder_renews_while_it_works(store, monkeypatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_S", 0.01)
    with hold_lease(store):
        before = json.loads(store.read(LEASE_NAME))["renewals"]
        for _ in range(500):
            if json.loads(store.read(LEASE_NAME))["renewals"] > before:
                return
            lease_module.time.sleep(0.01)
    pytest.fail("was not renewed")


def test_a_lease_that_is_not_one_is_named(store) -> None:
    store.write(LEASE_NAME, b"{}")
    with pytest.raises(ShardError, match=r"lease\.json: not readable"), hold_lease(store):
        pass
