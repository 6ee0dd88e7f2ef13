"""Embeddings of image regions by a CLIP, computed once: for ViLD's distillation and for prompts of regions.

    python tools/embed_regions.py --config configs/detection/lvis_base_boxes.yaml --dataset lvis_v1_train_norare \\
        --output runs/regions/lvis_base MODEL.WEIGHTS runs/detection/lvis_base_boxes/model_final.pth

The regions are the proposals of the detector, which have no class, or those of --proposals: what MODEL.PROPOSALS.FILE
reads, such as results of any detector as a COCO list, the regions of Segment Anything, or an annotation file for the
true boxes. The image tower is MODEL.DISTILLATION_CLIP; as in ViLD, an embedding is the mean of a box's crop and of that
of a 1.5 times larger one. A command that was stopped goes on where it was.
"""

import argparse
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser, parse_with_overrides, whole_number
from prompt_core.errors import run_command
from prompt_core.ranges import COUNT
from prompt_core.visible import say, visible_path


def main() -> None:
    """Parse, embed what is missing, write the index."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a detector's configuration")
    parser.add_argument("--dataset", required=True, help="a data set with photos, also one of DATASETS.FILES")
    parser.add_argument("--proposals", type=Path, metavar="FILE", help="regions from outside (default: the detector's)")
    parser.add_argument("--limit", type=whole_number(COUNT), default=300, help="best regions of a photo (default: 300)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the embeddings go")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="settings, such as MODEL.DISTILLATION_CLIP.NAME mini"
    )
    arguments = parse_with_overrides(parser)
    from detectron2.data import DatasetCatalog

    from pomp_det import load_config
    from pomp_det.checks import register_configured
    from pomp_det.clip_towers import embedder_of
    from pomp_det.data.region_cache import write_region_cache
    from pomp_det.data.registration import registered_metadata
    from pomp_det.proposals.own_proposals import OwnProposals
    from pomp_engine.data.proposal_files import ProposalFile

    cfg = load_config(arguments.config, arguments.overrides)
    register_configured(cfg)
    registered_metadata(arguments.dataset)
    records = DatasetCatalog.get(arguments.dataset)
    if arguments.proposals is None:
        proposals: Any = OwnProposals(cfg, arguments.limit)
    else:
        proposals = ProposalFile(arguments.proposals, arguments.limit)
        proposals.say_absent(arguments.dataset, records)
    embedder, clip = embedder_of(cfg), cfg.MODEL.DISTILLATION_CLIP
    made = {
        "dataset": arguments.dataset,
        "clip": clip.NAME,
        "pretrained": Path(clip.PRETRAINED).name,
        "proposals": Path(arguments.proposals or cfg.MODEL.WEIGHTS).name,
        "limit": arguments.limit,
        "enlargements": list(embedder.enlargements),
    }
    total = write_region_cache(
        arguments.output,
        records,
        proposals,
        embedder,
        made,
        lambda done, of: say(f"{done} of {of} photos"),
        cfg.MODEL.DEVICE,
    )
    say(f"{total} regions of {len(records)} photos, written to {visible_path(arguments.output)}")


if __name__ == "__main__":
    run_command(main)
