"""Batches of captions: Detic's caption loss, what an image is compared with, and processes that share captions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import load_config
from pomp_det.heads.weak_batches import WeakOptions, WeakTargets, weak_losses
from prompt_core import UserError

CAPTIONS = {
    "WITH_IMAGE_LABELS": True,
    "MODEL.WITH_CAPTION": True,
    "MODEL.ROI_BOX_HEAD.ADD_IMAGE_BOX": True,
    "MODEL.ROI_BOX_HEAD.IMAGE_LOSS_WEIGHT": 0.3,
    "MODEL.ROI_BOX_HEAD.CAPTION_WEIGHT": 0.7,
    "MODEL.ROI_BOX_HEAD.NEG_CAP_WEIGHT": 0.25,
}


def regions(*counts: int) -> list[Instances]:
    """Images with so many regions each."""
    images = [Instances((96, 128)) for _ in counts]
    for image, count in zip(images, counts, strict=True):
        image.proposal_boxes = Boxes(torch.arange(4.0).expand(count, 4) + torch.arange(float(count))[:, None] ** 2)
    return images


def by_hand(head: Any, features: torch.Tensor, captions: torch.Tensor, last: dict[int, int], first: int) -> float:
    """The sum over images of Detic's loss of their last regions, other captions with a quarter of the weight."""
    total = 0.0
    for image, row in last.items():
        embedding = F.normalize(head.linear.weight @ features[row] + head.linear.bias, dim=0)
        for column, caption in enumerate(captions):
            logit = 50 * float(embedding @ F.normalize(caption, dim=0))
            probability = torch.tensor(logit, dtype=torch.float64).sigmoid()
            own = column == first + image
            total -= float(probability.log()) if own else 0.25 * float((1 - probability).log())
    return total


@pytest.mark.parametrize("kind", ["caption", "captiontag"])
def test_caption_loss_in_double_precision(make_tiny: Callable[..., Any], kind: str) -> None:
    """Within the image loss, as in Detic's code: CAPTION_WEIGHT counts times IMAGE_LOSS_WEIGHT."""
    changed = CAPTIONS | {"MODEL.SYNC_CAPTION_BATCH": True}
    options = WeakOptions.from_config(load_config(None, changed | {"MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": True}))
    predictor = make_tiny(changed).roi_heads.box_predictor[0].double()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 16, generator=generator, dtype=torch.float64)
    captions = torch.randn(5, 24, generator=generator, dtype=torch.float64)
    captions[4] = 0  # of a process without captions
    images = regions(3, 0, 2, 1)
    targets = WeakTargets(kind, [[1], [2], [], [3, 4]], captions, first_caption=1)
    losses = weak_losses(predictor, features, predictor(features), images, targets, options)
    expected = by_hand(predictor.cls_score, features, captions, {0: 2, 2: 4, 3: 5}, first=1)
    torch.testing.assert_close(float(losses["caption_loss"]), 0.3 * 0.7 * expected / 4, rtol=1e-12, atol=0)
    labels = predictor.image_label_losses(predictor(features), images, targets.labels)
    assert labels["image_loss"] > 0
    assert losses["image_loss"] == (labels["image_loss"] if kind == "captiontag" else 0)


@pytest.mark.parametrize(("shared", "weight"), [(True, 0.25), (False, 1.0)])
def test_other_captions_have_their_weight_only_where_processes_share_captions(shared: bool, weight: float) -> None:
    changed = {"MODEL.SYNC_CAPTION_BATCH": shared, "MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": True}
    options = WeakOptions.from_config(load_config(None, CAPTIONS | changed))
    assert options.negative_weight == weight
    assert options.caption_weight == pytest.approx(0.3 * 0.7)


def test_every_caption_of_an_image_is_drawn(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    model = make_tiny(CAPTIONS | {"MODEL.CAP_BATCH_RATIO": 3}).train()
    drawn: list[str] = []
    absent: list[int] = []

    def encode(texts: list[str], device: torch.device, rows: int) -> Any:
        drawn.extend(texts)
        absent.append(rows)
        return (torch.ones(len(texts), 24) if texts else None), 0

    model.caption_encoder = encode
    boxes = Instances((96, 128), gt_boxes=Boxes(torch.tensor([[10.0, 10, 90, 80]])), gt_classes=torch.tensor([3]))
    record = {"image": photo, "instances": boxes[:0], "ann_type": "captiontag", "pos_category_ids": [1]}
    with EventStorage(0):
        for _ in range(12):
            losses = model([record | {"captions": ["one", "two"]}])
        assert set(drawn) == {"one", "two"}
        assert all(losses[f"caption_loss_stage{stage}"] > 0 for stage in range(3))
        drawn.clear()
        absent.clear()
        box = model([record | {"instances": boxes, "ann_type": "box"}] * 2)
        image = model([record | {"ann_type": "image"}])
        assert drawn == []
        assert absent == [6, 1]  # a box batch is a third of a caption batch
        assert set(box) == set(image) == set(losses)
        assert box["caption_loss_stage0"] == image["caption_loss_stage0"] == 0
        with pytest.raises(UserError, match="of a caption batch has no captions"):
            model([record])


CAPTIONS_OF_TWO = """
import os
import pathlib
import sys
import time
import prompt_core.clip
import prompt_core.text.encoder
import torch
from detectron2.utils import comm
from pomp_det.clip_towers import CaptionEncoder

class Texts:
    def encode_texts(self, texts):
        return torch.tensor([[float(len(text))] for text in texts])

rank = int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
comm.create_local_process_group(2)
prompt_core.clip.load_clip = lambda *arguments: None
prompt_core.text.encoder.PromptedTextEncoder = lambda clip: Texts()
encoder = CaptionEncoder("mini", None, synchronise=True)
cpu = torch.device("cpu")
for texts, expected in (
    (([], ["a", "bb"]), [0, 0, 1, 2]),  # the other would have two captions
    ((["aaa"], ["a", "bb"]), [3, 1, 2]),
    (([], []), None),
):
    features, first = encoder(texts[rank], cpu, absent=2)
    assert (features is None) if expected is None else features[:, 0].tolist() == expected
    assert first == (len(texts[0]) or 2 if rank else 0)
# A process that leaves closes its connections, from which the other may still be reading.
done = [pathlib.Path(f"{sys.argv[1]}.{each}") for each in range(2)]
done[rank].touch()
limit = time.monotonic() + 60
while not all(path.exists() for path in done) and time.monotonic() < limit:
    time.sleep(0.02)
torch.distributed.destroy_process_group()
os._exit(0)  # gloo's threads abort one of ten processes in the interpreter's last steps
"""


def test_processes_share_captions_whatever_their_batches(tmp_path: Path) -> None:
    """One process draws boxes while another draws captions: neither may wait for ever."""
    script = tmp_path / "script.py"
    script.write_text(CAPTIONS_OF_TWO, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), str(rank)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
