"""The build's progress: totals, rate and time left, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from factory.progress import BuildProgress, describe_duration
from shards.manifest import ShardEntry, shard_name


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(index: int, records: int = 100, seen: int = 150) -> ShardEntry:
    drops = {"unsure": 20, "fragmented": 15, "empty": 10, "too_small": seen - records - 45}
    return ShardEntry(shard_name("crops", index), records, 10_000_000, "0" * 64, {"x": records}, drops, seen)


def run(
    shards: int,
    each_s: float,
    *,
    counts_images: bool = False,
    terminal: bool = False,
    already: int = 0,
    expected: int = 1000,
) -> list[str]:
    """The lines that a build of so many shards prints."""
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=300, color_system=None, legacy_windows=False)
    progress = BuildProgress(
        expected,
        counts_images=counts_images,
        already=map(entry, range(already)),
        console=console,
        clock=clock,
    )
    with progress:
        for index in range(shards):
            clock.now += each_s
            progress.add(entry(already + index))
    return out.getvalue().splitlines()


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    lines = run(5, 4.0)
    assert [line.split(" of ")[0] for line in lines] == ["300", "500"]
    assert lines[0] == (
        "300 of 1,000 crops (30%), 25.0 crops/s, 28 s left, 30.0 MB, "
        "dropped 150 (60 unsure, 45 fragmented, 30 empty)"
    )


def test_a_short_build_leaves_a_log_as_it_was() -> None:
    assert run(9, 1.0) == []


def test_a_finite_source_is_counted_in_images() -> None:
    line = run(1, 12.0, counts_images=True, expected=1500)[0]
    assert line.startswith(
        "150 of 1,500 images (10%), 8.3 crops/s, 2 min left, 10.0 MB, kept 100, dropped 50 ("
    )


def test_shards_of_earlier_runs_count_as_done_but_not_for_the_rate() -> None:
    line = run(1, 10.0, already=5)[0]
    assert line.startswith("600 of 1,000 crops (60%), 10.0 crops/s, 40 s left, 60.0 MB, dropped 300 (")


def test_the_rate_is_that_of_the_last_two_minutes() -> None:
    clock, out = Clock(), io.StringIO()
    with BuildProgress(10**6, counts_images=False, console=Console(file=out), clock=clock) as progress:
        for index in range(200):  # 100 crops/s, then one worker in ten is left
            clock.now += 1.0 if index < 100 else 10.0
            progress.add(entry(index))
        assert ", 10.0 crops/s, " in progress.line()
    assert len(progress._marks) < 130


def test_a_terminal_gets_a_bar() -> None:
    out = "\n".join(run(3, 1.0, terminal=True))
    assert "━" in out
    assert "300 of 1,000 crops (30%), 100.0 crops/s" in out


def test_a_build_with_nothing_to_do_is_no_division_by_zero() -> None:
    assert run(0, 1.0, expected=0) == []
    assert run(1, 11.0, expected=0)[0].split(", ")[2] == "0 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (600, "10 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (400_000, "4.6 days"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text
