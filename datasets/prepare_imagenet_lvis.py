"""List the ImageNet-21K photos of LVIS classes with their class, for training on image labels.

    python datasets/prepare_imagenet_lvis.py
    python datasets/prepare_imagenet_lvis.py --wnids imagenet_lvis_wnid.txt

Photos are looked for in imagenet/ImageNet-LVIS, else imagenet/ImageNet-21K, below the data root: folders
(WNID/*.JPEG) or archives (WNID.tar), which are read in place. 997 ImageNet classes are LVIS classes by their WordNet
synset. The table of WordNet ids is part of the package; --wordnet derives it anew from WordNet 3.0's index.noun, and
--mapping reads another one (lines "n02084071 dog.n.01").
"""

from __future__ import annotations

from pathlib import Path

from pomp_det.data.prepare.imagenet_lvis import prepare_imagenet_lvis
from pomp_det.data.wordnet import read_mapping, read_noun_index, read_wnids, wnids_of_synsets
from pomp_engine.data.derived_files import preparation_parser, print_outcomes
from prompt_core.errors import UserError, run_command
from prompt_core.files import data_root
from prompt_core.vocabulary import Vocabulary


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done and what has no photos."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="folder with WNID/ or WNID.tar")
    parser.add_argument("--wnids", metavar="FILE", help="take only the WordNet ids listed here, one a line")
    parser.add_argument("--wordnet", metavar="FILE", help="index.noun of WordNet 3.0 to derive the mapping from")
    parser.add_argument("--mapping", metavar="FILE", help="mapping of WordNet ids to synsets")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="threads that read photo headers")
    values = parser.parse_args(arguments)
    if values.wordnet and values.mapping:
        raise UserError("give --wordnet or --mapping, not both")
    mapping = read_mapping(values.mapping) if values.mapping else None
    if values.wordnet:
        mapping = wnids_of_synsets(Vocabulary.load("lvis").synsets or [], read_noun_index(values.wordnet))
    path, outcome, absent, problems = prepare_imagenet_lvis(
        data_root(values.root),
        values.photos,
        mapping,
        read_wnids(values.wnids) if values.wnids else None,
        values.overwrite,
        max(1, values.workers),
    )
    print_outcomes({path: outcome})
    if absent:
        print(f"{len(absent)} classes have no photos there: {', '.join(absent[:5])}{', …' if len(absent) > 5 else ''}")
    for line in problems.lines():
        print(line)


if __name__ == "__main__":
    run_command(main)
