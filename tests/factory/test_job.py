import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from configs.errors import InputError
from factory import job as job_module
from factory.build import main
from factory.job import Fleet, run_job
from factory.maker import Job, ShardMaker, ShardResult
from factory.pipeline import ShardTask
from factory.recipe import load_recipe
from shards.errors import ShardError
from shards.lease import hold_lease
from shards.manifest import ShardEntry, read_manifest, shard_name
from shards.store import open_store

_ROOM = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
_RECIPE = """
label: blob
source: {kind: images}
segmenter: {kind: grabcut}
quality: {duplicate_bits: null}
shard_size: 2
"""


@pytest.fixture
def recipe(tmp_path: Path, photo_folder: Path) -> list[str]:
    """The command line of a build of 20 shards, less --out."""
    path = tmp_path / "blob.yaml"
    path.write_text(_RECIPE)
    return ["--class", str(path), f"source.root={photo_folder}"]


@pytest.fixture
def cluster():
    """Three nodes on loopback, each with room for one worker; this process is in it."""
    made = Cluster(initialize_head=True, head_node_args=_ROOM)
    nodes = [made.add_node(**_ROOM) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    try:
        yield nodes
    finally:
        ray.shutdown()
        made.shutdown()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_node_lost_mid_job_is_made_up_for_by_the_others(cluster, recipe, tmp_path, monkeypatch) -> None:
    main([*recipe, "--out", str(tmp_path / "off"), "--ray", "off"])
    take, taken = job_module._Pool._take, []

    def lose_a_node_after_the_third(self, call):
        result = take(self, call)
        taken.append(result)
        if sum(item is not None for item in taken) == 3 and result is not None:
            cluster[0].all_processes["raylet"][0].process.kill()
        return result

    monkeypatch.setattr(job_module._Pool, "_take", lose_a_node_after_the_third)
    assert main([*recipe, "--out", str(tmp_path / "set"), "--ray", "auto"]) == 0
    assert files_of(tmp_path / "set") == files_of(tmp_path / "off")
    assert cluster[0].all_processes["raylet"][0].process.poll() is not None


class UnrulyMaker:
    """Stands in for ShardMaker; fails, or dies, at the shard that says so."""

    def __init__(self, job: Job, encoders: int = 0) -> None:
        self.job = job

    def make(self, task: ShardTask) -> ShardResult:
        if task.limit == 13:
            raise InputError("photos: none, wanted one")
        if task.limit == 17:
            os._exit(1)
        time.sleep(0.05)
        entry = ShardEntry(shard_name("crops", task.index), 1, 1, "0" * 64, {"blob": 1})
        return ShardResult(task, entry, ())


@pytest.fixture
def job(recipe, tmp_path) -> Job:
    return Job(load_recipe(recipe[1], recipe[2:]), tmp_path, str(tmp_path / "set"), "fingerprint", "token")


def test_a_users_error_is_not_retried_and_comes_after_the_shards_under_way(job, monkeypatch) -> None:
    monkeypatch.setattr(job_module, "ShardMaker", UnrulyMaker)
    tasks = [ShardTask(index, 13 if index == 2 else 1) for index in range(8)]
    made = []
    with pytest.raises(InputError, match="photos: none, wanted one"):
        for result in run_job(job, tasks, Fleet("local", 2)):
            made.append(result.task.index)
    assert {0, 1} <= set(made)
    assert 2 not in made
    assert len(made) < 7


def test_a_shard_that_kills_its_workers_is_named_in_the_end(job, monkeypatch) -> None:
    monkeypatch.setattr(job_module, "ShardMaker", UnrulyMaker)
    tasks = [ShardTask(index, 17 if index == 0 else 1) for index in range(2)]
    with pytest.raises(InputError, match=r"4 workers died over crops-00000[01]\.tar"):
        list(run_job(job, tasks, Fleet("local", 1)))


def test_two_threads_on_one_maker_give_the_bytes_of_one(recipe, tmp_path) -> None:
    main([*recipe, "--out", str(tmp_path / "off"), "--ray", "off"])
    loaded = load_recipe(recipe[1], recipe[2:])
    known = read_manifest(open_store(tmp_path / "off")).fingerprint
    with hold_lease(open_store(tmp_path / "set")) as lease:
        maker = ShardMaker(Job(loaded, tmp_path, str(tmp_path / "set"), known, lease.token), encoders=2)
        tasks = iter([ShardTask(index, None) for index in range(20)])

        def work() -> None:
            for task in tasks:
                maker.make(task)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tars = {path.name: path.read_bytes() for path in (tmp_path / "set").glob("*.tar")}
    assert tars == {path.name: path.read_bytes() for path in (tmp_path / "off").glob("*.tar")}


def test_a_worker_that_sees_other_photos_is_refused(recipe, tmp_path) -> None:
    with hold_lease(open_store(tmp_path / "set")) as lease:
        job = Job(load_recipe(recipe[1], recipe[2:]), tmp_path, str(tmp_path / "set"), "another", lease.token)
        with pytest.raises(InputError, match="this worker's photos or weights differ from the driver's"):
            ShardMaker(job).make(ShardTask(0, None))


def test_a_worker_whose_job_has_ended_writes_nothing(job, recipe, tmp_path) -> None:
    main([*recipe, "--out", str(tmp_path / "set"), "--ray", "off"])
    known = read_manifest(open_store(tmp_path / "set")).fingerprint
    before = files_of(tmp_path / "set")
    stray = Job(job.recipe, tmp_path, str(tmp_path / "set"), known, "a token of old")
    with pytest.raises(ShardError, match="held by nobody: this writer's job has ended"):
        ShardMaker(stray).make(ShardTask(0, 1))
    assert files_of(tmp_path / "set") == before


def test_a_second_job_on_the_set_is_refused(recipe, tmp_path) -> None:
    with (
        hold_lease(open_store(tmp_path / "set")),
        pytest.raises(ShardError, match=r"process \d+ on .* is writing here"),
    ):
        main([*recipe, "--out", str(tmp_path / "set"), "--ray", "off"])


def test_a_cluster_that_is_not_there_is_an_error_of_one_line(recipe, tmp_path) -> None:
    with pytest.raises(InputError, match=r"--ray 127\.0\.0\.1:1: .*wanted off, local or a running cluster"):
        main([*recipe, "--out", str(tmp_path / "set"), "--ray", "127.0.0.1:1"])


def test_a_build_killed_at_any_step_on_disk_resumes_to_the_same_bytes() -> None:
    script = Path(__file__).parents[1] / "faults" / "crash_points.py"
    command = [sys.executable, str(script), "--photos", "5", "--crops", "3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong" in done.stdout
