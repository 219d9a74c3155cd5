import numpy as np

from trainer.sample import Sample, collate, make_target
from trainer.streaming.augment import AugmentConfig, fit_sample


def face(known=None):
    return make_target(
        [[20, 20, 60, 60]] * 2,
        landmarks=[[[30, 30], [50, 30], [40, 40], [32, 50], [48, 52]]] * 2,
        has_landmarks=known,
    )


def test_a_mirrored_face_has_its_left_eye_on_the_left() -> None:
    only_flip = AugmentConfig(flip=1, zoom_in=0, zoom_out=0)
    target = fit_sample(
        np.zeros((100, 100, 3), np.uint8), face([True, False]), 50, only_flip, np.random.default_rng(0)
    ).target
    assert target.landmarks[0].tolist() == [[25, 15], [35, 15], [30, 20], [26, 26], [34, 25]]
    assert target.has_landmarks.tolist() == [True, False]


def test_a_face_whose_landmarks_are_cut_away_has_none() -> None:
    config = AugmentConfig(flip=0, zoom_in=0, zoom_out=0, iou_crop=1, min_visible=0)
    seen = [
        fit_sample(np.zeros((100, 100, 3), np.uint8), face(), 50, config, np.random.default_rng(s)).target
        for s in range(80)
    ]
    for target in seen:
        if len(target):
            inside = ((target.landmarks >= 0) & (target.landmarks <= 50)).all((1, 2))
            assert (target.has_landmarks == inside).all()
    assert any(len(t) and not t.has_landmarks.all() for t in seen)


def test_landmarks_pass_into_a_batch_and_are_absent_where_none_has_any() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    batch = collate([Sample("a", image, face()), Sample("b", image, make_target([[0, 0, 4, 4]]))])
    assert [tuple(p.shape) for p in batch.landmarks] == [(2, 5, 2), (1, 5, 2)]
    assert [k.tolist() for k in batch.has_landmarks] == [[True, True], [False]]
    assert collate([Sample("b", image, make_target([[0, 0, 4, 4]]))]).landmarks is None
