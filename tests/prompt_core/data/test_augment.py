"""The training transform: reproducible views, the right operations, ranges and probabilities."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prompt_core.data import augment
from prompt_core.data.augment import (
    OPERATIONS,
    TrainTransform,
    crop_box,
    draw_operations,
    view_generator,
)
from prompt_core.errors import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RANGES = {
    "AutoContrast": None,
    "Brightness": (0.1, 1.9),
    "Color": (0.1, 1.9),
    "Contrast": (0.1, 1.9),
    "Equalize": None,
    "Identity": None,
    "Invert": None,
    "Posterize": (4, 8),
    "Rotate": (-30, 30),
    "Sharpness": (0.1, 1.9),
    "ShearX": (-0.3, 0.3),
    "ShearY": (-0.3, 0.3),
    "Solarize": (0, 256),
    "TranslateX": (-0.3, 0.3),
    "TranslateY": (-0.3, 0.3),
}


def photo(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_operations_are_those_of_the_recipe() -> None:
    assert set(OPERATIONS) == set(RANGES)


def test_operations_are_drawn_with_the_right_frequencies_and_ranges() -> None:
    generator = random.Random(0)
    draws = [draw_operations(generator) for _ in range(20_000)]
    numbers = Counter(len(drawn) for drawn in draws)
    # binomial(2, 0.6): 16 %, 48 %, 36 %; standard deviation below 0.36 %, four of them allowed
    assert [numbers[count] / len(draws) for count in range(3)] == pytest.approx([0.16, 0.48, 0.36], abs=0.0145)
    names = Counter(name for drawn in draws for name, _ in drawn)
    total = sum(names.values())
    assert set(names) == set(RANGES)
    assert max(abs(count / total - 1 / 15) for count in names.values()) < 0.008
    assert any(len(drawn) == 2 and drawn[0][0] == drawn[1][0] for drawn in draws), "drawn with replacement"
    for name, limits in RANGES.items():
        if limits is None:
            continue
        low, high = limits
        values = np.array([value for drawn in draws for operation, value in drawn if operation == name])
        assert values.min() >= low
        assert values.max() <= high
        shares = np.histogram(values, bins=4, range=(low, high))[0] / len(values)
        assert abs(shares - 0.25).max() < 0.05, f"{name} is not uniform in its range"


@pytest.mark.parametrize("name", sorted(RANGES))
def test_every_operation_keeps_size_and_mode_at_both_ends(name: str) -> None:
    operation = OPERATIONS[name]
    for magnitude in (operation.low, (operation.low + operation.high) / 2, operation.high):
        for sign in (1, -1) if operation.signed else (1,):
            result = operation.apply(photo(), sign * magnitude)
            assert (result.size, result.mode) == ((40, 30), "RGB")


def test_operations_do_what_they_are_called() -> None:
    image = photo()
    pixels = np.asarray(image)

    def apply(name: str, magnitude: float) -> np.ndarray:
        return np.asarray(OPERATIONS[name].apply(image, magnitude))

    np.testing.assert_array_equal(apply("Identity", 0), pixels)
    np.testing.assert_array_equal(apply("Invert", 0), 255 - pixels)
    np.testing.assert_array_equal(apply("Posterize", 4.7), pixels & 0xF0)
    np.testing.assert_array_equal(apply("Solarize", 100.5), np.where(pixels < 100.5, pixels, 255 - pixels))
    np.testing.assert_array_equal(apply("Solarize", 0), 255 - pixels)
    np.testing.assert_array_equal(apply("Solarize", 256), pixels)
    # a quarter of the 40 pixel width, and a fifth of the 30 pixel height
    np.testing.assert_array_equal(apply("TranslateX", 0.25)[:, :30], pixels[:, 10:])
    np.testing.assert_array_equal(apply("TranslateX", -0.25)[:, 10:], pixels[:, :30])
    np.testing.assert_array_equal(apply("TranslateY", 0.2)[:24], pixels[6:])
    assert not apply("TranslateX", 0.25)[:, 30:].any()
    np.testing.assert_allclose(apply("Brightness", 0.5), pixels * 0.5, atol=1)
    assert np.ptp(apply("Color", 0.1).astype(int), axis=2).mean() < np.ptp(pixels.astype(int), axis=2).mean() / 5
    # sheared rows move by 0.3 pixels per row, the first one stays
    np.testing.assert_array_equal(apply("ShearX", 0.3)[20, :33], pixels[20, 6:39])
    np.testing.assert_array_equal(apply("ShearX", 0.3)[0], pixels[0])
    np.testing.assert_array_equal(apply("ShearY", 0.3)[:23, 20], pixels[6:29, 20])


@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_crop_boxes_lie_inside_and_are_not_empty(width: int, height: int, seed: int) -> None:
    left, upper, right, lower = crop_box(width, height, (0.08, 1.0), random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


def test_crop_boxes_cover_the_scale_and_aspect_ranges() -> None:
    generator = random.Random(0)
    boxes = np.array([crop_box(1000, 1000, (0.08, 1.0), generator) for _ in range(5000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = across * down / 1e6, across / down
    assert 0.079 < area.min() < 0.09
    assert 0.97 < area.max() <= 1
    assert 0.745 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.342
    # symmetric in the logarithm
    assert abs(np.log(ratio).mean()) < 0.01
    # every position is possible, to the last pixel at both sides
    assert (boxes[:, 0] == 0).any()
    assert (boxes[:, 2] == 1000).any()


def test_crop_falls_back_to_the_largest_permitted_centred_box() -> None:
    assert crop_box(400, 10, (1.0, 1.0), random.Random(0)) == (193, 0, 206, 10)
    assert crop_box(10, 400, (1.0, 1.0), random.Random(0)) == (0, 193, 10, 206)


def test_views_are_reproducible_in_any_order() -> None:
    transform = TrainTransform(16, MEAN, STD)
    jobs = [(key, view) for key in ("a.jpg", "b/ü.jpg") for view in range(3)]
    forward = {job: transform(photo(), view_generator(3, *job)) for job in jobs}
    random.seed(99)
    backward = {job: transform(photo(), view_generator(3, *job)) for job in reversed(jobs)}
    assert all(torch.equal(forward[job], backward[job]) for job in jobs)
    distinct = {forward[job].numpy().tobytes() for job in jobs}
    assert len(distinct) == len(jobs), "each view differs"
    assert not torch.equal(transform(photo(), view_generator(4, "a.jpg", 0)), forward["a.jpg", 0])


def test_the_stream_is_pinned() -> None:
    # a change here makes every earlier run irreproducible; raise RECIPE_VERSION with it
    generator = view_generator(42, "n01440764/n01440764_18.JPEG", 1)
    assert [round(generator.random(), 6) for _ in range(3)] == [0.724565, 0.302258, 0.260462]
    assert crop_box(500, 375, (0.08, 1.0), view_generator(42, "a.jpg", 0)) == (72, 45, 361, 342)
    names = [[name for name, _ in draw_operations(view_generator(42, "a.jpg", view))] for view in range(2)]
    assert names == [["Invert", "Invert"], []]
    assert augment.RECIPE_VERSION == 1


def test_no_global_random_state_is_used() -> None:
    random.seed(5)
    expected = random.random()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    random.seed(5)
    TrainTransform(16, MEAN, STD)(photo(), view_generator(0, "k", 0))
    assert random.random() == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_output_is_a_normalised_tensor() -> None:
    transform = TrainTransform(16, MEAN, STD, rand_augment=False)
    grey = Image.new("L", (50, 20), 102)
    tensor = transform(grey, view_generator(0, "k", 0))
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    for channel in range(3):
        torch.testing.assert_close(tensor[channel], torch.full((16, 16), (0.4 - MEAN[channel]) / STD[channel]))


def test_crop_and_flip_equal_the_plain_operations() -> None:
    transform = TrainTransform(24, (0, 0, 0), (1, 1, 1), rand_augment=False)
    flips = 0
    for view in range(200):
        box = crop_box(40, 30, (0.08, 1.0), view_generator(0, "k", view))
        cropped = photo().crop(box).resize((24, 24), Image.Resampling.BICUBIC)
        plain, mirrored = np.asarray(cropped), np.asarray(cropped)[:, ::-1]
        actual = np.asarray(transform.augment(photo(), view_generator(0, "k", view)))
        assert np.array_equal(actual, plain) or np.array_equal(actual, mirrored)
        flips += not np.array_equal(actual, plain)
    # binomial(200, 0.5): standard deviation 7.1, four of them allowed
    assert 72 < flips < 128


def test_scale_is_respected() -> None:
    transform = TrainTransform(30, (0, 0, 0), (1, 1, 1), rand_augment=False, scale=(1.0, 1.0))
    square = photo(30, 30)
    views = [np.asarray(transform.augment(square, view_generator(0, "k", view))) for view in range(30)]
    whole = sum(np.array_equal(view, np.asarray(square)) for view in views)
    for view in range(30):
        left, upper, right, lower = crop_box(30, 30, (1.0, 1.0), view_generator(0, "k", view))
        assert (right - left) * (lower - upper) >= 0.95 * 900
    assert whole + sum(np.array_equal(view[:, ::-1], np.asarray(square)) for view in views) > 0


def test_fingerprint_follows_every_setting() -> None:
    variants = [
        TrainTransform(16, MEAN, STD),
        TrainTransform(17, MEAN, STD),
        TrainTransform(16, (0.5, 0.5, 0.5), STD),
        TrainTransform(16, MEAN, (0.5, 0.5, 0.5)),
        TrainTransform(16, MEAN, STD, rand_augment=False),
        TrainTransform(16, MEAN, STD, scale=(0.5, 1.0)),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert TrainTransform(16, list(MEAN), list(STD)).fingerprint == variants[0].fingerprint


def test_transform_can_be_sent_to_a_worker_process() -> None:
    transform = TrainTransform(16, MEAN, STD)
    copy = pickle.loads(pickle.dumps(transform))
    assert isinstance(copy, TrainTransform)
    assert torch.equal(copy(photo(), view_generator(0, "k", 0)), transform(photo(), view_generator(0, "k", 0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "image size 0"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"std": (0.0, 1.0, 1.0)}, "std above 0"),
        ({"scale": (0.0, 1.0)}, "crop scale"),
        ({"scale": (0.9, 0.5)}, "crop scale"),
        ({"scale": (0.5, math.inf)}, "crop scale"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainTransform(**{"size": 16, "mean": MEAN, "std": STD, **arguments})  # type: ignore[arg-type]
