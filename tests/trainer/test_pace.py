from trainer.training import pace
from trainer.training.pace import Pace


def test_pace_counts_waiting_and_leaves_out_rest(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])

    def loading():
        for _ in range(2):
            clock[0] += 1.0
            yield "batch"

    meter = Pace()
    for _ in meter.waiting(loading()):
        clock[0] += 3.0
        meter.images += 16
    with meter.resting():
        clock[0] += 100.0
    assert meter.take() == {"images_per_s": 4.0, "data_frac": 0.25}
    clock[0] += 2.0
    assert meter.take() == {"images_per_s": 0.0, "data_frac": 0.0}
