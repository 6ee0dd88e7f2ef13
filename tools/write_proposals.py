"""Regions of photos by Segment Anything, for MODEL.PROPOSALS.FILE: PHOTO.json for each photo in a folder.

    python tools/write_proposals.py --model vit_b --weights sam_vit_b_01ec64.pth --output runs/regions photos/
    python tools/train_net.py --config configs/mini/given_regions.yaml --eval-only MODEL.PROPOSALS.FILE runs/regions

--model is a name of segment_anything (vit_h, vit_l, vit_b) or a configuration of sam2 (configs/sam2.1/….yaml); the
package and its checkpoint are the user's to install. Photos whose file is there are left out, so that a run that was
stopped goes on where it was.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import UserError, run_command
from prompt_core.ranges import COUNT
from prompt_core.visible import say


def main() -> None:
    """Parse, load once, write a file for each photo."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders, or patterns like '*/*.jpg'")
    parser.add_argument("--model", required=True, help="vit_h, vit_l or vit_b, or a configuration of sam2")
    parser.add_argument("--weights", required=True, type=Path, metavar="FILE", help="the model's published checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--points-per-side",
        type=whole_number(COUNT),
        default=32,
        metavar="N",
        help="regions are looked for at N x N points of a photo (default: 32); fewer are faster",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the files go")
    arguments = parser.parse_args()
    from pomp_engine.data.segment_anything import load_generator, write_proposals
    from prompt_core.photos.photo_list import list_photos_to_predict

    photos = list_photos_to_predict(arguments.photos, arguments.output)
    generator = load_generator(
        arguments.model, arguments.weights, arguments.device, points_per_side=arguments.points_per_side
    )
    unreadable: list[str] = []
    done = write_proposals(
        generator, photos, arguments.output, lambda name, regions: say(f"{name}: {regions} regions"), unreadable
    )
    for line in unreadable:
        say(f"left out: {line}", error=True)
    if len(unreadable) == len(photos):
        raise UserError("no photo could be read")
    say(f"{done} of {len(photos)} photos done now, written to {arguments.output}")


if __name__ == "__main__":
    run_command(main)
