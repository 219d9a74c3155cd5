"""One writer at a time: ``lease.json`` beside the shards, renewed by its holder for as long as it lives.

A holder that died on this machine is seen at once; one on another machine when its lease has stood unrenewed
for `EXPIRES_S`, by the clock of the one who waits: clocks of two machines are never compared. A holder that
was only asleep notices at its next renewal that it was replaced, and stops.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from shards.errors import ShardError
from shards.store import Store

LEASE_NAME = "lease.json"
RENEW_S = 10.0
EXPIRES_S = 60.0
_SETTLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes. machine: boot and process namespace, within which ``pid`` means something.
    born: start of the process in clock ticks, so that a pid given out again is not mistaken for it.
    """

    token: str
    host: str
    machine: str
    pid: int
    born: int
    renewals: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Clock(Protocol):
    """Time as `hold_lease` needs it; tests bring their own."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Lease:
    """A lease as its holder has it."""

    def __init__(self, store: Store, holder: Holder) -> None:
        self._store, self._holder = store, holder
        self._lost = False

    @property
    def token(self) -> str:
        """Names this lease; workers elsewhere prove by it whom they write for, see `check_token`."""
        return self._holder.token

    def check(self) -> None:
        """Raises ShardError when another writer took the lease."""
        if self._lost:
            raise ShardError(f"{self._store.location}: another writer took over: stopped")

    def renew(self) -> None:
        """Says that the holder lives. Storage that fails now and then is asked again at the next renewal."""
        with suppress(ShardError):
            found = _read(self._store)
            if found is None or found.token != self.token:
                self._lost = True
                return
            self._holder = replace(self._holder, renewals=self._holder.renewals + 1)
            self._store.write(LEASE_NAME, _text(self._holder))


def check_token(store: Store, token: str) -> None:
    """Raises ShardError when the store's lease is not the one of that token."""
    found = _read(store)
    if found is None or found.token != token:
        raise ShardError(f"{store.location}: held by {found or 'nobody'}: this writer's job has ended")


@contextmanager
def hold_lease(
    store: Store, *, say: Callable[[str], None] = lambda _: None, clock: Clock = time
) -> Iterator[Lease]:
    """The only lease of a store while the context lasts; taken over from a dead holder.

    say: is told, once, when a holder on another machine has to be waited for.
    Raises ShardError when a living writer holds it.
    """
    lease = Lease(store, _take(store, say, clock))
    ended = threading.Event()

    def keep_alive() -> None:
        while not ended.wait(RENEW_S):
            lease.renew()

    keeper = threading.Thread(target=keep_alive, name="lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        ended.set()
        keeper.join()
        with suppress(ShardError):
            check_token(store, lease.token)
            store.remove(LEASE_NAME, missing_ok=True)


def _take(store: Store, say: Callable[[str], None], clock: Clock) -> Holder:
    mine = _this_process()
    while not store.create(LEASE_NAME, _text(mine)):
        found = _read(store)
        if found is None:
            continue
        if _may_live(store, found, say, clock):
            raise ShardError(f"{store.location}: {found} is writing here: wait for it, or stop it")
        if _read(store) == found:
            store.remove(LEASE_NAME, missing_ok=True)
            clock.sleep(
                _SETTLE_S
            )  # another one that found it dead may remove what a quicker one then created
    return mine


def _may_live(store: Store, found: Holder, say: Callable[[str], None], clock: Clock) -> bool:
    """Whether the holder is, or could be, alive. Waits for a renewal when it cannot be looked at."""
    if found.machine == _machine():
        return found.born == _born(found.pid) and found.born != -1
    say(f"{store.location}: {found} was writing here: waiting up to {EXPIRES_S:.0f} s for a sign of life")
    end = clock.monotonic() + EXPIRES_S
    while clock.monotonic() < end:
        clock.sleep(1.0)
        now = _read(store)
        if now is None or now.token != found.token:
            return False  # it ended, or another took it: try again
        if now.renewals != found.renewals:
            return True
    return False


def _read(store: Store) -> Holder | None:
    if not store.exists(LEASE_NAME):
        return None
    try:
        text = store.read(LEASE_NAME)
    except ShardError:
        if not store.exists(LEASE_NAME):  # removed in between
            return None
        raise
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        place = f"{store.location}/{LEASE_NAME}"
        raise ShardError(f"{place}: not readable: remove it when no job writes here") from None


def _text(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), sort_keys=True).encode()


def _this_process() -> Holder:
    pid = os.getpid()
    return Holder(secrets.token_hex(8), socket.gethostname(), _machine(), pid, _born(pid))


def _machine() -> str:
    """This boot of this machine, and the namespace of its process numbers; the host's name elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> int:
    """When the process started, in clock ticks since the boot; 0 where that is unknown, -1 when none runs."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if facts[0] in {"Z", "X"} else int(facts[19])
    except FileNotFoundError:
        return -1 if Path("/proc/self").exists() else _is_running(pid)


def _is_running(pid: int) -> int:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        return 0
    return 0
