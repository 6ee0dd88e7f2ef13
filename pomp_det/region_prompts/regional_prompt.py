"""Learning a prompt on embeddings of regions: grades of IoU, epochs, and the mean over several prompts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pomp_det.region_prompts.labelled_regions import LabelledRegions
from pomp_det.region_prompts.region_loss import class_weights, region_loss
from prompt_core.classifier import TextClassifier
from prompt_core.clip import Clip
from prompt_core.errors import UserError
from prompt_core.methods.soft_prompt import SoftPromptMethod, start_prompt
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.visible import shortened, visible_path
from prompt_core.vocabulary import Vocabulary

# DetPro's grades of IoU, each with a prompt of its own; an IoU of 1 belongs to the last.
GRADES = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.1))
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegionPromptOptions:
    """How a prompt is learned; the defaults are those of DetPro's ``prompt/run.py`` and ``detpro.sh``.

    Attributes:
        n_ctx: learned vectors, before the name.
        init: words to start from; empty for random vectors.
        rate: of SGD, falling to 0 by a cosine from epoch to epoch.
        logit_scale: factor of the cosines.
        background: lowest and highest IoU of the regions that are background; None to learn of classes alone.
        background_share: of these, that are learned on.
        balanced: each class counts alike.
        chunk_size: names per pass of the text tower; None for all.
    """

    n_ctx: int = 8
    init: str = ""
    epochs: int = 6
    batch: int = 512
    rate: float = 2e-3
    logit_scale: float = 100.0
    background: tuple[float, float] | None = (0.1, 0.5)
    background_share: float = 0.1
    balanced: bool = True
    seed: int = 0
    chunk_size: int | None = None


# Without grades and background, on regions that an annotation fits: PromptDet's (Feng et al., arXiv 2203.16513).
REGIONAL = RegionPromptOptions(background=None, balanced=False)


def learn_region_prompt(
    clip: Clip,
    names: Sequence[str],
    regions: LabelledRegions,
    grade: tuple[float, float] = (0.5, 1.1),
    options: RegionPromptOptions | None = None,
) -> SoftPrompt:
    """Learn a prompt on the regions of one grade.

    Args:
        clip: whose image tower made the embeddings.
        names: C texts of the classes, which may carry a description behind the name.
        regions: labels count ``names``.
        grade: regions of a class count whose IoU is at least the first and below the second number.

    Returns:
        the prompt, whose metadata say which CLIP and which grade it was learned with.

    Raises:
        UserError: no region of that grade, or embeddings of another width than the text features.
    """
    options = options or RegionPromptOptions()
    if regions.features.shape[1] != clip.embed_dim:
        raise UserError(
            f"embeddings of regions have width {regions.features.shape[1]}, {clip.name} has {clip.embed_dim}; learn "
            "with the CLIP that made them"
        )
    generator = torch.Generator().manual_seed(options.seed)
    chosen = graded(regions, len(names), grade, options, generator)
    if not bool((chosen.labels < len(names)).any()):
        raise UserError(f"no region of a class has an IoU of {grade[0]} to {grade[1]}; give more regions of each photo")
    prompt = start_prompt(clip, options.n_ctx, options.init, seed=options.seed).to(clip.device)
    method = SoftPromptMethod.around(PromptedTextEncoder(clip), prompt)
    weights = class_weights(chosen.labels, len(names)) if options.balanced else None
    optimizer = torch.optim.SGD(prompt.parameters(), options.rate)
    for epoch in range(options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * (1 + math.cos(math.pi * epoch / options.epochs)) / 2
        total = 0.0
        for rows in torch.randperm(len(chosen.labels), generator=generator).split(options.batch):
            features = F.normalize(chosen.features[rows].float().to(clip.device), dim=1)  # (B, E)
            classes = method.class_features(names, chunk_size=options.chunk_size)  # (C, E)
            logits = options.logit_scale * features @ classes.to(features).T
            loss = region_loss(logits, chosen.labels[rows].to(clip.device), weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        logger.info("IoU %.1f to %.1f, epoch %d: loss %.4f", *grade, epoch + 1, total / len(chosen.labels))
        if not math.isfinite(total):
            raise UserError("the loss is not a number; choose a smaller rate")
    prompt.metadata |= {
        "clip": clip.name,
        "pretrained": Path(clip.pretrained).name if clip.pretrained else None,
        "clip_sha256": clip.fingerprint,
        "grade": list(grade),
        "regions": len(chosen.labels),
    }
    return prompt.eval()


def check_learned_so(prompt: SoftPrompt, path: str | Path, wanted: Mapping[str, Any]) -> None:
    """Check that a prompt from a file is what would be learned now.

    Args:
        wanted: of its metadata; what the file does not say is not compared.

    Raises:
        UserError: when it was learned otherwise.
    """
    for key, value in wanted.items():
        if (known := prompt.metadata.get(key, value)) != value:
            raise UserError(
                f"{visible_path(path)} was learned with {key} {shortened(known)}, asked for is {shortened(value)}; "
                "choose another --output"
            )


def graded(
    regions: LabelledRegions,
    num_classes: int,
    grade: tuple[float, float],
    options: RegionPromptOptions,
    generator: torch.Generator,
) -> LabelledRegions:
    """The regions of classes of a grade, then a share of those that are background, labelled C."""
    chosen = regions.rows(regions.of_grade(num_classes, grade))
    if options.background is None:
        return chosen
    least, most = options.background
    rows = ((regions.ious >= least) & (regions.ious < most)).nonzero().squeeze(1)
    kept = round(options.background_share * len(rows))
    rows = rows[torch.randperm(len(rows), generator=generator)[:kept]]
    labels = torch.cat((chosen.labels, chosen.labels.new_full((len(rows),), num_classes)))
    return LabelledRegions(
        torch.cat((chosen.features, regions.features[rows])), labels, torch.cat((chosen.ious, regions.ious[rows]))
    )


def ensemble_classifier(
    clip: Clip,
    vocabulary: Vocabulary | Sequence[str],
    prompts: Sequence[SoftPrompt],
    names: Sequence[str] | None = None,
) -> TextClassifier:
    """The mean over prompts of unit-norm class features, normalised again (DetPro, section 3.4).

    Args:
        vocabulary: what is encoded, such as names with descriptions.
        names: what the classes are called; None for the same.
    """
    encoder = PromptedTextEncoder(clip)
    parts = [TextClassifier.build(clip, vocabulary, prompt, encoder=encoder) for prompt in prompts]
    weight = F.normalize(torch.stack([part.weight for part in parts]).sum(dim=0), dim=1)
    metadata = {key: value for key, value in parts[0].metadata.items() if key != "prompt_sha256"}
    hashes = [part.metadata["prompt_sha256"] for part in parts]
    return TextClassifier(weight, names or parts[0].names, metadata | {"prompts_sha256": hashes})
