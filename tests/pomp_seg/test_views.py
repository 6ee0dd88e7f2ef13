"""Several views of a photo: sizes, mirrored, windows, and a CRF, on plain stand-ins for a segmenter."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pomp_engine import run
from pomp_seg import load_config
from pomp_seg.best_classes import BestClasses, PixelScores
from pomp_seg.dense_crf import crf_package, refine
from pomp_seg.predictor import OpenVocabularySegmenter
from pomp_seg.sliding_windows import by_windows, window_side, window_starts
from pomp_seg.task import segmentation_task
from pomp_seg.views import SeveralViews, ViewOptions, views_of, with_views
from prompt_core import UserError
from prompt_core.evaluation.protocol import read_metrics

from ..support.segmenter_run import make_data, save_segmenter, tiny_settings, unregister

CPU = {"MODEL.DEVICE": "cpu"}


class Colours(nn.Module):
    """Scores of a pixel are its own colours, in the size of the output: nothing around it matters."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def pixel_scores(self, batch: Any) -> list[PixelScores]:
        self.seen += [tuple(example["image"].shape[-2:]) for example in batch]
        return [
            PixelScores(
                example["image"].float() / 255,
                (example.get("height", example["image"].shape[-2]), example.get("width", example["image"].shape[-1])),
            )
            for example in batch
        ]


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 200), window=st.integers(1, 90), overlap=st.sampled_from([0, 0.25, 0.5, 2 / 3, 0.9]))
def test_windows_cover_the_whole_side(length: int, window: int, overlap: float) -> None:
    starts = window_starts(length, window, overlap)
    covered = np.zeros(length, int)
    for start in starts:
        assert start == 0 or start + window <= length, "no window reaches beyond the end, but one that is longer"
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert all(b - a <= window for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(("side", "overlap"), [(7, 0.5), (5, 0.0), (10, 2 / 3), (40, 0.5)])
def test_what_windows_say_is_averaged(side: int, overlap: float) -> None:
    """Scores that look at the pixel alone come out as they are: the weights of all windows add up to one."""
    image = photo(23, 17).double()
    torch.testing.assert_close(by_windows(image, lambda window: window, side, overlap), image)
    # scores that depend on the window: the mean over those that cover a pixel, pixel by pixel
    number = itertools.count()
    given_scores: list[tuple[Tensor, float]] = []

    def score(window: Tensor) -> Tensor:
        value = float(next(number))
        given_scores.append((window, value))
        return torch.full((1, *window.shape[-2:]), value, dtype=torch.float64)

    found = by_windows(image, score, side, overlap)
    places = itertools.product(window_starts(23, side, overlap), window_starts(17, side, overlap))
    sums, counts = np.zeros((23, 17)), np.zeros((23, 17))
    for value, (top, left) in enumerate(places):
        sums[top : top + side, left : left + side] += value
        counts[top : top + side, left : left + side] += 1
    np.testing.assert_allclose(found[0].numpy(), sums / counts)


def test_a_window_over_all_is_the_whole_photo() -> None:
    example = {"image": photo(20, 30), "height": 40, "width": 60}
    whole = SeveralViews(Colours(), ViewOptions(sizes=(20,), mirrored=False))([example])[0]["sem_seg"]
    window = SeveralViews(Colours(), ViewOptions(window=30))([example])[0]["sem_seg"]
    assert whole.shape == (3, 40, 60)
    torch.testing.assert_close(window, whole)
    segmenter = Colours()
    SeveralViews(segmenter, ViewOptions(window=12, overlap=0.5))([example])
    assert set(segmenter.seen) == {(12, 12)}


def test_windows_by_the_shorter_side() -> None:
    assert window_side(512, 700, 0) == 256
    assert window_side(512, 700, 100) == 100
    with pytest.raises(UserError, match="resized to 30 x 20; give the side of the windows"):
        window_side(20, 30, 0)


def test_views_are_all_sizes_and_their_mirror_images() -> None:
    image = photo(20, 30)
    views = list(views_of(image, ViewOptions(sizes=(10, 20), longest=40)))
    assert [(tuple(view.shape[-2:]), mirrored) for view, mirrored in views] == [
        ((10, 15), False),
        ((10, 15), True),
        ((20, 30), False),
        ((20, 30), True),
    ]
    assert torch.equal(views[2][0], image)
    assert torch.equal(views[3][0].flip(-1), image), "a flip of a flip"
    assert [mirrored for _, mirrored in views_of(image, ViewOptions())] == [False]


def test_a_mirrored_photo_gets_the_mirrored_answer() -> None:
    """With both views the answer is symmetric, even of a segmenter that prefers one side."""

    class LeftHanded(Colours):
        def pixel_scores(self, batch: Any) -> list[PixelScores]:
            (scores,) = super().pixel_scores(batch)
            return [PixelScores(scores.maps * torch.linspace(0, 1, scores.maps.shape[-1]), scores.size)]

    image = photo(12, 18)
    options = ViewOptions(sizes=(12,), longest=40)
    plain, turned = (
        SeveralViews(LeftHanded(), options)([{"image": one}])[0]["sem_seg"] for one in (image, image.flip(-1))
    )
    torch.testing.assert_close(plain.flip(-1), turned)
    alone = SeveralViews(LeftHanded(), ViewOptions(sizes=(12,), longest=40, mirrored=False))
    once, other = (alone([{"image": one}])[0]["sem_seg"] for one in (image, image.flip(-1)))
    assert not torch.allclose(once.flip(-1), other)
    # equal views of an even-handed segmenter change nothing
    torch.testing.assert_close(SeveralViews(Colours(), options)([{"image": image}])[0]["sem_seg"], image.float() / 255)


def test_configurations_say_which_views() -> None:
    views = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (32, 48), "TEST.SLIDING_WINDOW": True}
    options = ViewOptions.from_config(load_config(None, CPU | views))
    assert (options.sizes, options.mirrored, options.window, options.name) == ((32, 48), True, 224, "sizes_windows")
    segmenter = Colours()
    assert with_views(segmenter, load_config(None, CPU)) is segmenter
    best = BestClasses(with_views(segmenter, load_config(None, CPU | views)))
    assert best([{"image": photo(30, 40)}])[0]["sem_seg"].shape == (30, 40)
    for changed, message in (
        ({"ORACLE": True, "TEST.SLIDING_WINDOW": True}, "ORACLE gives regions of whole photos"),
        ({"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": ()}, "TEST.AUG.ENABLED needs TEST.AUG.MIN_SIZES"),
        ({"TEST.DENSE_CRF": True, "MODEL.SEM_SEG_HEAD.BACKGROUND": "x,y"}, "probabilities among the words alone"),
    ):
        with pytest.raises(UserError, match=message):
            ViewOptions.from_config(load_config(None, CPU | changed))


def test_a_crf_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "pydensecrf"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(
        UserError, match=r"TEST.DENSE_CRF needs the package pydensecrf2 .*pip install pydensecrf2"
    ) as caught:
        ViewOptions.from_config(load_config(None, CPU | {"TEST.DENSE_CRF": True}))
    assert "\n" not in str(caught.value)


def test_a_crf_follows_the_colours() -> None:
    """Noise in a mask goes, and the border of two colours stays where it is."""
    try:
        crf_package()
    except UserError as error:
        pytest.skip(str(error))
    colours = np.zeros((32, 48, 3), np.uint8)
    colours[:, :24], colours[:, 24:] = (220, 40, 30), (30, 60, 210)
    truth = torch.zeros(32, 48, dtype=torch.long)
    truth[:, 24:] = 1
    wrong = torch.rand(32, 48, generator=torch.Generator().manual_seed(0)) < 0.25
    noisy = torch.where(wrong, 1 - truth, truth)
    scores = 2.0 * torch.nn.functional.one_hot(noisy, 2).permute(2, 0, 1)
    colours.setflags(write=False)  # as a photo is that was read from a file
    refined = refine(scores, colours)
    assert refined.shape == (2, 32, 48)
    torch.testing.assert_close(refined.sum(dim=0), torch.ones(32, 48), atol=1e-4, rtol=0)
    assert (noisy != truth).float().mean() > 0.2
    assert (refined.argmax(dim=0) != truth).float().mean() < 0.01
    view = SeveralViews(Colours(), ViewOptions(crf=True))
    example = {"image": torch.from_numpy(colours.transpose(2, 0, 1).copy()), "photo": colours}
    assert view([example])[0]["sem_seg"].shape == (3, 32, 48)
    with pytest.raises(UserError, match="a photo of 48 x 32 pixels in uint8 is expected"):
        refine(scores, colours[:-1])


class Buffers:
    """A stand-in for the compiled module: it takes its arrays by buffers that it may write to."""

    DIAG_KERNEL, NORMALIZE_SYMMETRIC = 0, 3

    def __init__(self) -> None:
        self.photo = np.zeros(0, np.uint8)

    def DenseCRF2D(self, width: int, height: int, count: int) -> Buffers:
        self.shape = (count, height * width)
        return self

    def setUnaryEnergy(self, unary: np.ndarray) -> None:
        assert (unary.shape, unary.dtype, unary.flags.c_contiguous) == (self.shape, np.float32, True)
        assert not memoryview(unary).readonly
        self.unary = unary

    def addPairwiseGaussian(self, **options: Any) -> None:
        pass

    def addPairwiseBilateral(self, rgbim: np.ndarray, **options: Any) -> None:
        assert rgbim.flags.c_contiguous
        assert not memoryview(rgbim).readonly
        self.photo = rgbim

    def inference(self, steps: int) -> np.ndarray:
        return np.exp(-self.unary)


def test_a_crf_takes_a_photo_as_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = Buffers()
    monkeypatch.setattr("pomp_seg.dense_crf.crf_package", lambda: buffers)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    example = {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "file_name": str(tmp_path / "a.png")}
    view = SeveralViews(Colours(), ViewOptions(crf=True))
    assert view([example])[0]["sem_seg"].shape == (3, 6, 5)
    assert buffers.photo.tolist() == pixels.tolist()


@pytest.mark.slow
def test_an_evaluation_and_a_prediction_with_views(tmp_path: Path) -> None:
    """Their numbers are kept apart, and a predictor sees the same views."""
    make_data(tmp_path)
    views = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (32, 48), "TEST.SLIDING_WINDOW": True,
             "TEST.SLIDING_TILE_SIZE": 40, "TEST.SLIDING_OVERLAP": 0.5}  # fmt: skip
    settings_of_run = tiny_settings(tmp_path, **views) | {"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "predefined"}
    cfg = load_config(None, settings_of_run)
    try:
        cfg.MODEL.WEIGHTS = str(save_segmenter(tmp_path, cfg))
        run.evaluate(segmentation_task(), cfg)
        folder = tmp_path / "run/inference_tiny_views_sizes_windows"
        written = np.asarray(Image.open(folder / "predictions/0.png"))
        protocol = read_metrics(tmp_path / "run/metrics_views_sizes_windows.json")["_protocol"]["tiny"]
        assert protocol["views"] == "sizes_windows"
        predictor = OpenVocabularySegmenter.load(cfg)
        predictor.set_dataset("tiny")
        found = predictor(tmp_path / "shapes/scenes/val/0.png").labels
        assert found.shape == written.shape
        assert (found == written).mean() > 0.95, "it resizes scores, the evaluation gives them the photo's size"
        plain = dict.fromkeys(("TEST.AUG.ENABLED", "TEST.SLIDING_WINDOW"), False)
        once = load_config(None, settings_of_run | plain | {"MODEL.WEIGHTS": cfg.MODEL.WEIGHTS})
        alone = OpenVocabularySegmenter.load(once)
        alone.set_dataset("tiny")
        assert (alone(tmp_path / "shapes/scenes/val/0.png").labels != found).any()
    finally:
        unregister()
