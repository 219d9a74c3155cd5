"""Train on several processes, GPUs and nodes through Ray Train.

Ray Train starts the workers, joins them in a process group and restarts all of them when one is lost; they go
on from the run folder's own last checkpoint, as a training that was stopped does.
"""

import logging
import os
import secrets
import shutil
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import configs
import shards
import trainer
from configs.errors import InputError
from trainer.cluster.config import ClusterConfig, check_address
from trainer.cluster.rank import EVALUATION_S, Desk, Part, Words, Work
from trainer.training.stopping import Stopped, stop_asked

_ROOM_S = 30.0  # without a worker
_LISTEN_S = 0.5  # between the driver's looks at what the workers say
_OBJECT_STORE_BYTES = 256 * 1024 * 1024
_LOG = logging.getLogger("trainer")


class Workers:
    """A cluster's workers, connected to when they are first needed, and as long as the context lasts."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._ray: Any = None
        self._is_mine = False

    @property
    def are_many(self) -> bool:
        """Whether there is more than this process."""
        return self._config.workers > 1

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_mine:
            self._ray.shutdown()

    def run(self, work: Work, folder: Path, threads: int | None = None) -> None:
        """Call ``work(device, ranks)`` on every worker until it is done.

        work goes by pickle; it goes on where it stopped when it is called once more. folder: all workers must
        see it. Raises what work raises of Stopped, InputError and ShardError, InputError when too many
        workers are lost, and Stopped after SIGTERM or Ctrl-C, once the first rank has saved.
        """
        self._connect()
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder.resolve() / f".seen-by-all-{secrets.token_hex(8)}"
        mark.touch()
        desk = self._ray.remote(num_cpus=0)(Desk).remote()
        part = Part(work, mark, Path.cwd(), desk, threads or self._config.cpus_per_worker, self._config)
        try:
            with stop_asked() as asked:
                self._attend(_Fit(part, self._config, folder.resolve()), desk, asked, folder)
        finally:
            self._ray.kill(desk)
            mark.unlink(missing_ok=True)

    def _attend(self, fit: "_Fit", desk: Any, asked: list[int], folder: Path) -> None:
        """Until the fit ends: pass on a wish to stop, and say what happens."""
        begun, told = time.monotonic(), False
        starts, words = 0, Words()
        fit.start()
        while fit.is_alive():
            fit.join(_LISTEN_S)
            before, (starts, words) = starts, self._ray.get(desk.news.remote())
            if starts > max(before, 1) and not words:
                lost = f"{starts - 1} of at most {self._config.max_failures}"
                _LOG.warning(f"{folder}: a worker was lost ({lost}): all go on from the last checkpoint")
            if asked and not told:
                self._ray.get(desk.stop.remote())
                told = True
            if not starts and asked:
                raise Stopped(f"{folder}: stopped before a worker was up", asked[0])
            if not starts and time.monotonic() - begun > _ROOM_S:
                _LOG.warning(f"waiting for room in the cluster: {self._wanted}")
                begun = time.monotonic()
        _, words = self._ray.get(desk.news.remote())
        if words:
            raise _spoken(words, asked)
        if fit.error is not None:
            raise _explained(fit.error, self._config, folder)
        if asked:
            raise Stopped(f"{folder}: trained to the end: run the same command again to go on", asked[0])

    def _connect(self) -> None:
        import ray

        self._ray = ray
        if not ray.is_initialized():
            self._join()
            self._is_mine = True
        if self._config.address == "local":
            self._check_gpus()

    def _join(self) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self._config.address
        if address == "local":
            cpus = max(len(os.sched_getaffinity(0)), self._config.workers * self._config.cpus_per_worker)
            self._ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
            return
        check_address(address)
        try:
            self._ray.init(address=address, runtime_env=_code(), **quiet)
        except (ConnectionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"cluster.address {address}: {reason}: wanted local or a running cluster"
            ) from error

    def _check_gpus(self) -> None:
        """A machine gets no more of them by waiting."""
        found = self._ray.cluster_resources().get("GPU", 0)
        if found < self._config.workers * self._config.gpus:
            raise InputError(f"cluster: found {found:g} GPUs here: {self._wanted}")

    @property
    def _wanted(self) -> str:
        config = self._config
        each = f"{config.cpus_per_worker} CPU" + (f" and {config.gpus:g} GPU" if config.gpus else "")
        return f"{config.workers} workers take {each} each"


def _code() -> dict[str, Any] | None:
    """Our packages for the other machines; a submitted job (``ray job submit``) brings its own."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"py_modules": [str(Path(package.__path__[0])) for package in (configs, shards, trainer)]}


class _Fit(threading.Thread):
    """Ray Train's blocking call, in a thread of its own: so that signals reach the main one."""

    def __init__(self, part: Part, config: ClusterConfig, folder: Path) -> None:
        super().__init__(daemon=True)
        self._part, self._config, self._folder = part, config, folder
        self.error: Exception | None = None

    def run(self) -> None:
        """Train; keeps what is raised."""
        os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_LISTEN_S))
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths may be relative to the driver's
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = {"CPU": self._config.cpus_per_worker, "GPU": self._config.gpus}
        try:
            TorchTrainer(
                self._part,
                torch_config=TorchConfig() if self._config.gpus else TorchConfig(timeout_s=EVALUATION_S),
                scaling_config=ScalingConfig(
                    num_workers=self._config.workers,
                    use_gpu=self._config.gpus > 0,
                    resources_per_worker={name: count for name, count in resources.items() if count},
                ),
                run_config=RunConfig(
                    name=".ray",
                    storage_path=str(self._folder),
                    failure_config=FailureConfig(max_failures=self._config.max_failures),
                ),
            ).fit()
        except Exception as error:  # raised in the main thread
            self.error = error
        finally:
            shutil.rmtree(self._folder / ".ray", ignore_errors=True)


def _spoken(words: Words, asked: list[int]) -> Exception:
    """The lowest rank's error, else where the ranks stopped."""
    errors = [word for _, word in sorted(words.items()) if isinstance(word, Exception)]
    if errors:
        return errors[0]
    number = signal.Signals(asked[0] if asked else signal.SIGTERM)
    return Stopped(str(words[min(words)]).replace("SIGTERM", number.name), number)


def _explained(error: Exception, config: ClusterConfig, folder: Path) -> Exception:
    """A bug as it is, and one line for workers that were lost."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", None)
        if isinstance(cause, OSError):
            return cause
    from ray.exceptions import RayActorError

    dead = [failure for failure in failures.values() if isinstance(failure, RayActorError)]
    if not dead:
        return error
    lines = [line.strip() for line in str(dead[0]).splitlines() if line.strip()]
    telling = [line for line in lines if "cause" in line.lower() or "memory" in line.lower()]
    return InputError(
        f"{folder}: workers were lost more than {config.max_failures} times (cluster.max_failures): "
        f"{(telling or lines or ['no reason given'])[-1]}: run the same command again to go on"
    )
