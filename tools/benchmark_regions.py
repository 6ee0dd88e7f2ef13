"""Measure what classifying regions with CLIP costs: one by one, in batches, and from a single pass.

    python tools/benchmark_regions.py --config configs/mini/coco_seg.yaml --weights runs/coco_seg/model_final.pth \\
        --dataset coco_small_sem_seg_val --images 20 --clip mini,ViT-B-16-quickgelu --output runs/regions.json

The regions are those that the segmenter proposes for the first photos of a data set and, as the worst case, as many
disjoint ones as it has queries. CLIPs are timed with random weights, which take the same time. All numbers are ratios
within one run.
"""

import argparse
import warnings
from typing import Any

from rich.table import Table

from pomp_lab.benchmarks.harness import add_option
from prompt_core.command_line import config_parser, parse_with_overrides, print_table
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable, write_json


def main() -> None:
    """Parse, propose regions, measure, write and print."""
    options = parse()
    check_writable(options.output)
    import torch

    import pomp_seg
    from pomp_lab.benchmarks.regions import disjoint_regions, predicted_regions, region_costs
    from pomp_seg.data.loader import build_mapper
    from pomp_seg.data.registration import check_labels, register_configured
    from prompt_core.clip import load_clip
    from prompt_core.evaluation.protocol import package_versions, processor_name

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cfg = pomp_seg.load_config(options.config, options.overrides)
    register_configured(cfg)
    records = check_labels(options.dataset)[: options.images]
    model = pomp_seg.build_segmenter(cfg)
    if cfg.MODEL.META_ARCHITECTURE != "ZeroShotMaskFormer":
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} proposes no regions; a ZeroShotMaskFormer is expected")
    pomp_seg.load_weights(model, options.weights)
    mapper = build_mapper(cfg, False, options.dataset)
    examples = [mapper(record) for record in records]
    proposed = predicted_regions(model, examples)
    height, width = proposed[0].masks.shape[-2:]
    worst = disjoint_regions(height, width, len(proposed[0].masks), device=cfg.MODEL.DEVICE)
    rows = []
    for name in options.clip.split(","):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*weights are random")
            clip = load_clip(name, device=cfg.MODEL.DEVICE)
        for kind, regions in (("proposed", proposed), ("disjoint, none empty", [worst])):
            costs = region_costs(clip, regions, cfg.MODEL.CLIP_ADAPTER.MASK_THR, options.repeats, options.batch)
            rows.append({"clip": name, "regions": kind, **costs})
    settings = {
        "config": options.config,
        "dataset": options.dataset,
        "threads": options.threads,
        "batch": options.batch,
    }
    report = {"rows": rows, "_run": {**settings, "processor": processor_name(), "versions": package_versions()}}
    write_json(options.output, report)
    show(rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of the segmenter")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="registered data set to take photos from")
    add_option(parser, "--images", 20, "photos")
    add_option(parser, "--clip", "mini", "architectures", str, "NAME,…")
    add_option(parser, "--repeats", 3, "measurements of each way")
    add_option(parser, "--batch", 32, "crops per pass")
    add_option(parser, "--threads", 1, "torch threads")
    options = parse_with_overrides(parser)
    if not options.config or not options.output:
        raise UserError("--config and --output are needed; see benchmark_regions.py --help")
    return options


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("CLIP", "regions", "proposals", "not empty", "distinct", "crops", "single pass", "difference")
    for row in rows:
        table.add_row(
            row["clip"],
            row["regions"],
            *(f"{row[name]:.1f}" for name in ("proposals", "not_empty", "distinct")),
            *(f"{row['faster'][name]['median']:.1f} times" for name in ("crops", "single_pass")),
            f"{row['largest_difference']:.0e}",
        )
    print_table(table)


if __name__ == "__main__":
    run_command(main)
