"""Inputs to measure a detector on: photos at the size of its configuration, and class matrices of several sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_det.class_matrix import ClassMatrix, read_class_matrix
from pomp_det.classifier import zero_shot_predictors
from pomp_det.data.evaluation_mapper import build_test_mapper
from prompt_core.classifier import TextClassifier
from prompt_core.data.photo_files import find_photos
from prompt_core.errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

HEIGHT, WIDTH = 480, 640  # pixels of a generated photo, as most of COCO's


def read_inputs(cfg: CfgNode, photos: Sequence[str | Path]) -> list[dict[str, Any]]:
    """A detector's inputs, one for each photo, resized as in evaluation.

    Args:
        photos: files, and folders that are searched with their subfolders.

    Raises:
        UserError: a path that does not exist, a folder without photos, or a file that is not a photo.
    """
    mapper = build_test_mapper(cfg)
    return [mapper({"file_name": str(file)}) for file in find_photos(photos)]


def random_inputs(cfg: CfgNode, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Inputs of random pixels, resized from 640 x 480 as photos would be."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            # Patches of one colour: proposals differ more on them than on pixel noise.
            patches = generator.integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), dtype=np.uint8)
            picture = Image.fromarray(patches).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
            picture.save(Path(folder) / f"{number:04d}.png")
        return read_inputs(cfg, [folder])


def matrices_by_count(model: nn.Module, counts: Sequence[int], seed: int = 0) -> list[TextClassifier]:
    """Class matrices of the given sizes for a detector.

    A smaller matrix has the first rows of the detector's own; a larger one has random rows instead, with the mean and
    covariance of its own rows, so that scores have the same spread. A detector with a random matrix gets random
    directions.

    Raises:
        UserError: when the detector has no zero-shot classifier.
    """
    classifier = _classifier(model)
    rows = classifier.zs_weight[:, :-1].T.float().cpu()  # (C, E)
    generator = torch.Generator().manual_seed(seed)
    matrices: list[TextClassifier] = []
    for count in counts:
        if count <= len(rows):
            weight, source = rows[:count], f"the first {count} of {len(rows)} classes of {classifier.source}"
        elif classifier.source == "random" or len(rows) == 1:
            weight = torch.randn(count, rows.shape[1], generator=generator)
            source = f"{count} random directions"
        else:
            weight = _alike(rows, count, generator)
            source = f"{count} random rows with the mean and covariance of {classifier.source}"
        matrices.append(ClassMatrix(weight, [f"class {row}" for row in range(count)], source))
    return matrices


def _alike(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Unit rows (count, E) drawn from the normal distribution that has the mean and covariance of ``rows`` (C, E)."""
    mean = rows.mean(dim=0)
    root = (rows - mean) / (len(rows) - 1) ** 0.5  # root.T @ root is the covariance
    return F.normalize(mean + torch.randn(count, len(rows), generator=generator) @ root, dim=1)


def matrices_by_vocabulary(
    model: nn.Module, vocabularies: Sequence[str], prompt: str, clip: str = "mini", pretrained: str | None = None
) -> list[TextClassifier]:
    """Class matrices of real features: of vocabularies encoded in a template, or read from files.

    Args:
        vocabularies: names of published vocabularies, files of names, or class matrices (``.npy``, ``.safetensors``).
        prompt: template with ``{}``.
        clip: the CLIP that encodes; its width must be the detector's.

    Raises:
        UserError: features of another width than the detector's, an unknown vocabulary or CLIP.
    """
    from prompt_core.clip import load_clip
    from prompt_core.vocabulary import Vocabulary

    width = _classifier(model).linear.out_features
    matrices: list[TextClassifier] = []
    encoder = None
    for name in vocabularies:
        if name.endswith((".npy", ".safetensors")):
            matrices.append(read_class_matrix(name))
            continue
        vocabulary = Vocabulary.load(name)
        encoder = encoder or load_clip(clip, pretrained)
        # One name gives the width before thousands are encoded.
        given = TextClassifier.build(encoder, vocabulary.names[:1], prompt).weight.shape[1]
        if given != width:
            raise UserError(
                f"the detector compares features of width {width}, CLIP {clip}'s are {given} wide; choose another "
                "--clip, or --classes instead of --vocabularies"
            )
        weight = TextClassifier.build(encoder, vocabulary, prompt).weight
        source = f"{len(weight)} classes of {name} with {prompt!r}, CLIP {clip}"
        matrices.append(ClassMatrix(weight, list(vocabulary.names), source))
    return matrices


def _classifier(model: nn.Module) -> Any:
    predictors = zero_shot_predictors(model)
    if not predictors:
        raise UserError("this detector has no zero-shot classifier; build it with ROI_BOX_HEAD.USE_ZEROSHOT_CLS True")
    return predictors[0].cls_score
