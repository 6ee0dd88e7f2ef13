"""Own shares of pixels are the softmax over words and background; pixels of too small a share are none of the words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("detectron2")

from pomp_seg import load_config, set_classes
from pomp_seg.pixel_shares import NONE_OF_THESE, background_names, background_rows, named_probability
from pomp_seg.predict_photos import PhotoSegmentations
from pomp_seg.predictor import OpenVocabularySegmenter
from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedPhoto

from ..support.segmenter import TINY

PER_PIXEL = {
    "MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel",
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 2.0,
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TEST": 48,
    "INPUT.MAX_SIZE_TEST": 100,
    "DATASETS.TRAIN": [],
    "DATASETS.TEST": [],
}
BACKGROUND = {"MODEL.SEM_SEG_HEAD.BACKGROUND": "sky,tree,sofa,house"}
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_the_probability_is_that_of_one_softmax_over_all() -> None:
    pixels, words, background = unit(50, 12, seed=0), unit(3, 12, seed=1), unit(7, 12, seed=2)
    logits = 100 * pixels @ torch.cat((words, background)).T
    expected = logits.softmax(dim=1)[:, :3].sum(dim=1)
    torch.testing.assert_close(named_probability(pixels, words, background, 100.0), expected, rtol=1e-10, atol=1e-14)
    assert named_probability(pixels, words, background[:0], 100.0).tolist() == [1.0] * 50


def test_words_and_their_relatives_do_not_stand_against_themselves() -> None:
    names = background_names("sky,tree,sofa,couch,furniture,dog")
    assert names is not None
    others = unit(len(names), 12, seed=3)
    kept = background_rows(["Sofa", "poodle"], names, unit(2, 12, seed=4), others)
    assert torch.equal(kept, others[[0, 1]])  # furniture is above sofa, dog above poodle, a couch is a sofa
    assert len(background_rows(["sky"], names, others[1:2], others)) == 4  # sky, and tree by its text


@pytest.mark.parametrize("given", ["voc", "package://pomp_seg/assets/segmenter_names.txt", "sky,tree", "list.txt"])
def test_what_names_a_background(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("sky\ntree\n")
    names = background_names(given)
    assert names is not None
    assert len(names) == {"voc": 20, "package": 139}.get(given.partition(":")[0], 2)
    assert background_names("") is None
    with pytest.raises(UserError, match="package no_such_package is not installed"):
        background_names("package://no_such_package/names.txt")


@pytest.fixture
def predictor(tiny: Callable[..., Any]) -> Callable[..., OpenVocabularySegmenter]:
    """A random per-pixel segmenter whose pixels differ."""

    def make(**changed: Any) -> OpenVocabularySegmenter:
        model = tiny(PER_PIXEL | changed, seed=1)
        with torch.no_grad():
            model.sem_seg_head.pixel_decoder.mask_features.weight.mul_(100)
        return OpenVocabularySegmenter(model, load_config(None, TINY | PER_PIXEL | changed))

    return make


def test_scores_are_own_shares_and_the_best_words_stay(predictor: Callable[..., OpenVocabularySegmenter]) -> None:
    plain, shares = predictor(), predictor(**BACKGROUND)
    model = shares.model
    assert model.state_dict().keys() == plain.model.state_dict().keys()
    example = {"image": torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()).float()}
    for words in (["cat", "boat"], ["boat"]):
        for segmenter in (plain, shares):
            set_classes(segmenter.model, words)
        with torch.no_grad():
            (before,), (after,) = (segmenter.model([example]) for segmenter in (plain, shares))
        factor = after["sem_seg"] / before["sem_seg"]
        assert float(factor.min()) < 0.5 * float(factor.max()) <= 0.5001
        torch.testing.assert_close(factor, factor[:1].expand_as(factor), rtol=1e-4, atol=1e-9)
        assert torch.equal(before["sem_seg"].argmax(dim=0), after["sem_seg"].argmax(dim=0))
    # At a cell's centre the factor is the plain one: text features of all names, one softmax.
    names = ["boat", "sky", "tree", "sofa", "house"]
    with torch.no_grad():
        maps, _ = model.features([example])
        pixels = F.normalize(model.sem_seg_head(maps)[0].flatten(1).T, dim=1)
        expected = (100 * pixels @ model.clip_adapter.text_features(names).T).softmax(dim=1)[:, 0]
    found = after["sem_seg"][0]
    assert float(found.min()) >= float(expected.min()) - 1e-5
    assert float(found.max()) <= float(expected.max()) + 1e-5


def test_pixels_of_none_of_the_words(predictor: Callable[..., OpenVocabularySegmenter], tmp_path: Path) -> None:
    every = predictor(**BACKGROUND)
    every.set_vocabulary(["cat", "boat"], ["bread"])
    plain = every(PIXELS)
    assert plain.class_names == ("cat", "boat", "bread")
    labels, best = every.best(PIXELS)
    threshold = float(best.median())
    some = predictor(**BACKGROUND, **{"MODEL.SEM_SEG_HEAD.NONE_OF_THESE": threshold})
    some.set_vocabulary(["cat", "boat"], ["bread"])
    found = some(PIXELS)
    assert some.class_names == ["cat", "boat", "bread", NONE_OF_THESE]
    assert found.background == some.background == (False, False, True, True)
    none = (best <= threshold).numpy()
    assert 0.3 < none.mean() < 0.7
    assert (found.labels == np.where(none, 3, labels.numpy())).all()
    assert found.shares[3] == pytest.approx(none.mean())
    assert found.scores[3] == pytest.approx(float((1 - best)[torch.from_numpy(none)].double().mean()), rel=1e-5)
    task = PhotoSegmentations(some)
    (tmp_path / "labels").mkdir()
    record = task.write(NamedPhoto(1, tmp_path / "a.png", "a.png"), PIXELS, found, tmp_path)
    assert (np.asarray(Image.open(tmp_path / record["label_map"])) == found.labels).all()
    assert {"index": 3, "name": NONE_OF_THESE} in [
        {key: row[key] for key in ("index", "name")} for row in record["classes"]
    ]
    json.dumps(record)


def test_every_pixel_of_a_data_set_has_a_class(
    predictor: Callable[..., OpenVocabularySegmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = predictor(**BACKGROUND, **{"MODEL.SEM_SEG_HEAD.NONE_OF_THESE": 0.999})
    some.set_vocabulary(["cat", "boat"])
    assert NONE_OF_THESE in some.class_names
    from detectron2.data import MetadataCatalog

    MetadataCatalog.get("own_share_test").set(stuff_classes=["cat", "boat"])
    try:
        monkeypatch.setattr("pomp_seg.predictor.registered_metadata", MetadataCatalog.get)
        some.set_dataset("own_share_test")
        assert some.class_names == ["cat", "boat"]
        assert set(np.unique(some(PIXELS).labels)) <= {0, 1}
    finally:
        MetadataCatalog.remove("own_share_test")


def test_settings_that_have_no_effect_are_refused(tiny: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"NONE_OF_THESE is 0\.5 without MODEL\.SEM_SEG_HEAD\.BACKGROUND"):
        tiny(PER_PIXEL | {"MODEL.SEM_SEG_HEAD.NONE_OF_THESE": 0.5})
    with pytest.raises(UserError, match="only META_ARCHITECTURE ZeroShotPerPixelModel has shares"):
        tiny(BACKGROUND)
