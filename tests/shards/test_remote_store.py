"""RemoteStore on a real S3-compatible server behind a line that fails. See tests/faults/s3_proxy.py."""

import gc
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import fsspec
import pytest

import shards.remote
from shards.errors import ShardError
from shards.patience import Patience
from shards.store import open_store
from tests.faults.s3_proxy import BUCKET, FAULTS, FaultyProxy, s3_settings

PART_BYTES = 256 << 10


def first(fault: str, times: int = 1, method: str = ""):
    """A plan: that fault at the first requests (of a method), then none."""
    left = [times]

    def plan(number: int, verb: str, path: str) -> str | None:
        if left[0] and method in verb:
            left[0] -= 1
            return fault
        return None

    return plan


def test_objects_come_back(proxy, place) -> None:
    store = open_store(place)
    assert store.sizes() == {}
    store.write("b.tar", b"second")
    store.write("a.tar", b"first")
    store.write("a.tar", b"newer")
    store.write("empty", b"")
    assert store.sizes() == {"a.tar": 5, "b.tar": 6, "empty": 0}
    assert store.names() == ["a.tar", "b.tar", "empty"]
    assert (store.read("a.tar"), bytes(store.view("b.tar")), store.read("empty")) == (
        b"newer",
        b"second",
        b"",
    )
    assert store.exists("a.tar")
    assert not store.exists("c.tar")
    assert abs(store.modified("a.tar") - time.time()) < 5
    store.remove("a.tar")
    store.remove("a.tar", missing_ok=True)
    assert store.names() == ["b.tar", "empty"]
    assert pickle.loads(pickle.dumps(store)).read("b.tar") == b"second"


@pytest.mark.parametrize("act", ["read", "view", "size", "modified", "remove"])
def test_a_missing_object_is_named_at_once(proxy, place, act) -> None:
    store = open_store(place)
    with pytest.raises(ShardError, match=rf"^{place}/none: not found$"):
        getattr(store, act)("none")
    assert len(proxy.seen) <= 2


def test_only_objects_of_the_folder_itself_are_listed(proxy, place) -> None:
    open_store(place).write("a", b"")
    open_store(f"{place}/below").write("b", b"")
    open_store(f"{place}-beside").write("c", b"")
    file_system, path = fsspec.url_to_fs(place)
    file_system.call_s3("put_object", Bucket=BUCKET, Key=f"{path.removeprefix(BUCKET + '/')}/", Body=b"")
    assert open_store(place).sizes() == {"a": 0}
    assert open_store(f"{place}/a").sizes() == {}


def test_a_shard_is_read_in_one_request(proxy, place) -> None:
    store = open_store(place)
    store.write("a", bytes(100_000))
    proxy.seen.clear()
    store.view("a")
    assert [verb for verb, _, _ in proxy.seen] == ["GET"]


def test_a_listing_of_many_pages_is_whole(proxy, place) -> None:
    store = open_store(place)
    names = [f"crops-{i:06d}.tar" for i in range(12)]
    for name in names:
        store.write(name, b"x")
    proxy.mend()
    proxy.page_keys = 5  # S3's own is 1000
    proxy.plan = lambda number, verb, path: "500" if number == 1 else None
    assert store.names() == names
    assert [fault for _, _, fault in proxy.seen].count(None) >= 3


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_and_a_read_outlive_a_fault_of_the_line(proxy, place, fault) -> None:
    store = open_store(place)
    data = os.urandom(300_000)
    proxy.plan = first(fault)
    store.write("a", data)
    proxy.plan = first(fault)
    assert store.read("a") == data
    proxy.plan = first(fault)
    assert store.sizes() == {"a": len(data)}


def test_a_lost_answer_to_a_removal_is_no_error(proxy, place) -> None:
    store = open_store(place)
    store.write("a", b"")
    proxy.plan = first("drop answer", 1, "DELETE")
    store.remove("a")
    assert not store.exists("a")


@pytest.mark.parametrize("fault", ["500", "slow down", "drop request", "slow"])
def test_a_line_that_stays_bad_is_an_error_in_bounded_time(proxy, place, monkeypatch, fault) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRIES", "2")
    store = open_store(place)
    store.write("a", b"old")
    proxy.plan = lambda number, verb, path: fault
    began = time.monotonic()
    with pytest.raises(
        ShardError, match=rf"^{place}/a: not written: .+ \(tried 2 times in \d+ s\)$"
    ) as caught:
        store.write("a", b"new")
    assert "\n" not in str(caught.value)
    with pytest.raises(ShardError, match=rf"^{place}/a: .+ \(tried 2 times"):
        store.exists("a")  # not "no": what cannot be seen may be there
    assert time.monotonic() - began < 4
    proxy.mend()
    assert store.read("a") == b"old"


def test_a_single_request_is_asked_again_before_the_operation_is(proxy, place, monkeypatch) -> None:
    settings = {key: value for key, value in s3_settings(proxy).items() if key != "config_kwargs"}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRIES", "1")
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_SILENCE_S", "5")
    proxy.plan = first("503")
    open_store(place).write("a", b"data")
    assert [fault for _, _, fault in proxy.seen] == ["503", None]


def test_an_upload_that_the_server_stops_reading_is_given_up(proxy, place, monkeypatch) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRY_S", "1.5")
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_SILENCE_S", "30")
    monkeypatch.setattr(shards.remote, "_SLOWEST_BYTES_S", 1e9)
    proxy.plan = first("deaf")
    began = time.monotonic()
    open_store(place).write("a", bytes(12 << 20))  # more than the sockets' buffers take
    assert time.monotonic() - began < 5.5
    assert proxy.seen[0][2] == "deaf"
    assert len(proxy.seen) > 1


def test_a_place_that_cannot_be_is_refused_at_once(proxy, monkeypatch) -> None:
    store = open_store("s3://no-such-bucket/set")
    for act in (
        store.names,
        lambda: store.write("a", b""),
        lambda: store.read("a"),
        lambda: store.exists("a"),
    ):
        with pytest.raises(ShardError, match=r"^s3://no-such-bucket/set.*: no such bucket$"):
            act()
    assert len(proxy.seen) <= 6
    with pytest.raises(ShardError, match=r"^s3://crops_/set: .*[Bb]ucket"):
        open_store("s3://crops_/set").names()


def test_a_refusal_is_said_at_once(proxy, place) -> None:
    store = open_store(place)
    proxy.plan = lambda number, verb, path: "403"
    for act in (store.names, lambda: store.write("a", b""), lambda: store.create("a", b"")):
        with pytest.raises(ShardError, match=rf"^{place}.*: injected$"):
            act()
    assert len(proxy.seen) == 3


def test_missing_credentials_are_said_at_once(proxy, place, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": proxy.url})
    with pytest.raises(ShardError, match=rf"^{place}: Unable to locate credentials$"):
        open_store(place).names()
    assert proxy.seen == []


def test_an_object_is_created_once(proxy, place) -> None:
    store = open_store(place)
    assert store.create("lease", b"mine")
    assert not store.create("lease", b"mine")
    assert not store.create("lease", b"yours")
    assert store.read("lease") == b"mine"


@pytest.mark.parametrize("fault", ["drop answer", "late"])
def test_who_created_an_object_knows_it_though_the_answer_was_lost(proxy, place, fault) -> None:
    proxy.plan = first(fault, 1, "PUT")
    assert open_store(place).create("lease", b"same")
    assert not open_store(place).create("lease", b"same")
    assert [verb for verb, _, _ in proxy.seen] == ["PUT", "PUT", "HEAD", "PUT", "HEAD"]


@pytest.mark.parametrize("fault", ["500", "drop answer"])
def test_a_large_object_goes_up_in_parts_and_outlives_a_fault_in_each(
    proxy, place, monkeypatch, fault
) -> None:
    monkeypatch.setattr(shards.remote, "_PART_BYTES", PART_BYTES)
    data = os.urandom(2 * PART_BYTES + 1)
    seen: set[str] = set()

    def once_each(number: int, verb: str, path: str) -> str | None:
        kind = verb + re.sub("uploadId=[^&]+", "", path)
        return None if kind in seen or seen.add(kind) else fault

    proxy.plan = once_each
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRIES", "12")
    store = open_store(place)
    store.write("large", data)
    assert sum("partNumber=3" in path for _, path, _ in proxy.seen) >= 1
    proxy.mend()
    assert store.read("large") == data


_UPLOADER = f"""
import sys
import shards.remote
from shards.store import open_store
shards.remote._PART_BYTES = {PART_BYTES}
open_store(sys.argv[1]).write("large", sys.argv[2].encode() * ({2 * PART_BYTES + 1}))
"""


def uploader(proxy: FaultyProxy, place: str, letter: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"FSSPEC_S3": json.dumps(s3_settings(proxy))}
    return subprocess.Popen([sys.executable, "-c", _UPLOADER, place, letter], env=environment)


@pytest.mark.parametrize("older", [None, b"older"])
def test_a_writer_killed_between_parts_leaves_the_older_object_or_none(proxy, place, older) -> None:
    store = open_store(place)
    if older is not None:
        store.write("large", older)
    arrived = threading.Event()

    def no_second_part(number: int, verb: str, path: str) -> str | None:
        if "partNumber=" not in path or "partNumber=1" in path:
            return None
        arrived.set()
        return "slow"

    proxy.plan = no_second_part
    process = uploader(proxy, place, "a")
    try:
        assert arrived.wait(20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    proxy.mend()
    assert store.sizes() == ({} if older is None else {"large": len(older)})
    assert store.exists("large") == (older is not None)
    assert store.remove_stale_temporaries() == ["large"]  # moto's uploads are all of 2010
    assert store.remove_stale_temporaries(alone=True) == []
    assert uploader(proxy, place, "a").wait() == 0
    assert store.read("large") == b"a" * (2 * PART_BYTES + 1)


def test_unfinished_uploads_of_others_are_spared_for_a_day_and_below_other_prefixes_for_ever(
    proxy, place
) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z").encode()
    proxy.rewrite = lambda body: body.replace(b"2010-11-10T20:48:33.000Z", now)
    file_system, path = fsspec.url_to_fs(place)
    key = path.removeprefix(f"{BUCKET}/")
    for name in (f"{key}/a", f"{key}/below/b", f"{key}-beside/c"):
        file_system.call_s3("create_multipart_upload", Bucket=BUCKET, Key=name)
    store = open_store(place)
    assert store.remove_stale_temporaries() == []
    assert store.remove_stale_temporaries(alone=True) == ["a"]
    left = file_system.call_s3("list_multipart_uploads", Bucket=BUCKET, Prefix=key)["Uploads"]
    assert sorted(upload["Key"] for upload in left) == [f"{key}-beside/c", f"{key}/below/b"]


def test_an_upload_that_was_thrown_away_under_its_writer_is_begun_again(proxy, place, monkeypatch) -> None:
    monkeypatch.setattr(shards.remote, "_PART_BYTES", PART_BYTES)
    store = open_store(place)
    cleaner = open_store(place)
    last_part = threading.Event()

    def hold_last_part(number: int, verb: str, path: str) -> str | None:
        if "partNumber=3" not in path or last_part.is_set():
            return None
        last_part.set()
        return "slow"

    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_SILENCE_S", "5")
    proxy.plan = hold_last_part
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.write, "large", bytes(2 * PART_BYTES + 1))
        assert last_part.wait(10)
        assert cleaner.remove_stale_temporaries(alone=True) == ["large"]
        writing.result()
    assert store.read("large") == bytes(2 * PART_BYTES + 1)


def test_threads_share_a_store(proxy, place) -> None:
    store = open_store(place)

    def there_and_back(number: int) -> bool:
        data = str(number).encode() * 1000
        store.write(f"{number:02d}", data)
        return store.read(f"{number:02d}") == data

    met: Counter[str] = Counter()

    def plan(number: int, verb: str, path: str) -> str | None:
        if number % 5 or met[path] == 2:  # a third would leave an unlucky object without a try
            return None
        met[path] += 1
        return "503"

    proxy.plan = plan
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(24)))
    assert len(store.names()) == 24
    assert met


def test_a_store_used_before_a_fork_works_in_the_child_and_leaves_the_parent_its_connections(
    proxy, place
) -> None:
    store = open_store(place)
    store.write("a", b"from the parent")
    parents = weakref.ref(next(iter(shards.remote._opened.values())))

    def in_child() -> None:
        store.write("b", b"from the child")
        gc.collect()
        sender.send((store.read("a"), parents() is not None))

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=in_child)
    child.start()
    assert receiver.poll(20)
    assert receiver.recv() == (b"from the parent", True)
    child.join(20)
    assert child.exitcode == 0
    assert store.read("b") == b"from the child"


def test_the_patience_is_read_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRIES", "3")
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_WAIT_S", "0.25")
    assert Patience.from_environment() == Patience(tries=3, wait_s=0.25)
    monkeypatch.setenv("CROP_FOUNDRY_REMOTE_TRIES", "many")
    with pytest.raises(
        ShardError, match=r"^\$CROP_FOUNDRY_REMOTE_TRIES: found 'many', wanted a number over 0$"
    ):
        open_store("s3://crops/set")
