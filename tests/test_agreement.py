"""Does the judge see the class that was asked for?"""

import numpy as np

from ssl_gen.metrics import agreement

RANDOM = np.random.default_rng(0)
LABELS = np.arange(12) % 3


def shaded(labels):
    """Noisy images (B, 4, 5, 2) uint8, each class of another brightness."""
    return (80 * labels[:, None, None, None] + RANDOM.integers(0, 20, (len(labels), 4, 5, 2))).astype(np.uint8)


JUDGE = agreement.judge(shaded(LABELS), LABELS)


def test_pixels_are_flat_and_between_0_and_1():
    images = np.array([0, 51, 255, 102], np.uint8).reshape(2, 1, 2, 1)
    np.testing.assert_allclose(agreement.pixels(images), [[0, 0.2], [1, 0.4]], rtol=1e-6)


def test_images_of_the_class_asked_for_agree():
    asked = np.array([2, 0, 1, 1])
    assert agreement.agreement(JUDGE, shaded(asked), asked) == 100


def test_agreement_is_a_percentage_of_images():
    shown, asked = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])
    assert agreement.agreement(JUDGE, shaded(shown), asked) == 75
    assert agreement.agreement(JUDGE, shaded(shown), (shown + 1) % 3) == 0


def test_images_of_unknown_or_no_class_teach_the_judge_nothing():
    labels = np.concatenate([LABELS, [-1, -2, -1]])
    judge = agreement.judge(shaded(labels.clip(0)), labels)
    assert judge.classes_.tolist() == [0, 1, 2]
    assert judge.shape_fit_ == (12, 4 * 5 * 2)


def test_of_many_images_a_fixed_choice_is_used(monkeypatch):
    monkeypatch.setattr(agreement, "LARGEST", 9)
    images = shaded(LABELS)
    judges = [agreement.judge(images, LABELS) for _ in range(2)]
    assert [judge.shape_fit_[0] for judge in judges] == [9, 9]
    np.testing.assert_array_equal(judges[0].support_vectors_, judges[1].support_vectors_)
    assert judges[0].classes_.tolist() == [0, 1, 2]  # the choice is mixed, not the first nine of sorted classes
