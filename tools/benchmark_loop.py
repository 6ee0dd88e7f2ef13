"""Measure the loop of pomp: correct photos of VOC, learn a prompt, and look at other photos, before and after.

    python tools/benchmark_loop.py --voc data/voc_boxes --output docs/results/label_loop.json

The boxes of VOC stand for a person's corrections. Accuracy of boxes and whole photos, box AP of the embedded detector,
and "none of these"; mean and spread over the seeds. NAME.md beside the output is the table.
"""

from pathlib import Path

from pomp_lab.arguments import whole_numbers
from pomp_lab.benchmarks.harness import add_option
from prompt_core.command_line import config_parser, parse_with_overrides, show_results
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable, write_sealed_json
from prompt_core.visible import say

CONFIG = "configs/mini/detector.yaml"


def main() -> None:
    """Parse, measure, write and print."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--voc", type=Path, required=True, metavar="DIR", help="VOC 2007 photos with boxes")
    add_option(parser, "--corrected", 100, "photos that are corrected")
    add_option(parser, "--others", 300, "photos that are looked at")
    add_option(parser, "--few", 10, "words of the part on none of these")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,…", help="seeds (default: 0,1,2)")
    options = parse_with_overrides(parser)
    if not options.output or not options.voc.is_dir():
        raise UserError("give the results' file as --output, and an existing folder of VOC as --voc")
    output, seeds = Path(options.output), whole_numbers("--seeds", options.seeds)
    check_writable(output)
    import tempfile

    import torch

    from pomp_lab.benchmarks.label_loop import Loop, LoopPlan
    from pomp_lab.benchmarks.loop_detections import box_scores
    from pomp_lab.benchmarks.loop_table import loop_table
    from prompt_core.clip import load_clip
    from prompt_core.evaluation.protocol import run_description

    torch.set_num_threads(1)
    clip = load_clip("mini")
    settings = [f"{key}={value}" for key, value in zip(options.overrides[::2], options.overrides[1::2], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plan = LoopPlan(options.voc, options.corrected, options.others, options.few, seeds, place, settings)
        loop = Loop(plan, clip, say)
        turns, prompts = [], {"template": "a photo of a {}."}
        for seed in seeds:
            turns.append(loop.turn(seed))
            prompts[f"seed {seed}"] = str(place / f"{seed}.safetensors")
            turns[-1].boxes.method.save_prompt(place / f"{seed}.safetensors")
        boxes = box_scores(str(Path(__file__).resolve().parent.parent / CONFIG), prompts, loop.others, loop.words)
    document = {
        "seeds": {str(turn.seed): turn.numbers for turn in turns},
        "box_ap": boxes,
        "corrected_photos": plan.corrected,
        "other_photos": plan.others,
        "_run": run_description(device="cpu, 1 thread", clip=clip.name, clip_sha256=clip.fingerprint),
    }
    write_sealed_json(output, document, durable=True)
    headings, rows = loop_table(document)
    show_results("%, mean ± half the range over seeds", headings, rows, output.with_suffix(".md"))


if __name__ == "__main__":
    run_command(main)
