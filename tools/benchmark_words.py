"""What a photo costs as words grow: the embedded models beside a pipeline that pays for each word.

    python tools/benchmark_words.py --output docs/results/words_cost.json

The pipeline is transformers' zero-shot object detection on a random OWL-ViT of its smallest configuration (pip install
transformers; nothing is downloaded). All run in one process with one thread, and the results are ratios of this run:
seconds of the processor, the fewest of several turns, since others may use the machine.
"""

from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from pomp_lab.benchmarks.harness import machine_description
from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import run_command
from prompt_core.files import check_writable, write_json
from prompt_core.ranges import COUNT
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

COUNTS, PIPELINE_COUNTS = (20, 300, 1203), (20, 300)


def main() -> None:
    """Parse, measure, write and print."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON for the results")
    parser.add_argument(
        "--photos", type=whole_number(COUNT), default=4, help="photos of the package for the embedded models"
    )
    parser.add_argument("--repeats", type=whole_number(COUNT), default=3, help="turns, of which the fastest counts")
    options = parser.parse_args()
    check_writable(options.output)
    import torch

    torch.set_num_threads(1)
    from pomp.shipped_photos import PHOTOS
    from pomp_lab.benchmarks.words_cost import (
        CLASSIFY,
        DETECT,
        front_model,
        owl_vit_pipeline,
        ratios,
        words_costs,
    )

    photos = [read_photo(file) for file in sorted(Path(PHOTOS).glob("*.jpg"))[: options.photos]]
    models = [(name, *front_model(task)) for name, task in ((DETECT, "detect"), (CLASSIFY, "classify"))]
    torch.manual_seed(0)
    pipeline, sizes = owl_vit_pipeline()
    words = list(Vocabulary.load("lvis").names)
    rows = words_costs(photos, words, COUNTS, pipeline, PIPELINE_COUNTS, models, options.repeats)
    found = ratios(rows)
    document = {
        "about": __doc__.splitlines()[0],
        "machine": machine_description("transformers"),
        "threads": 1,
        "pipeline": sizes,
        "vocabulary": "the first names of LVIS",
        "rows": rows,
        "ratios": found,
    }
    write_json(options.output, document)
    for entry in found:
        line = f"{entry['system']}, {entry['words']} words: {entry['times_of_fewest_words']:.2f} times the fewest"
        if "pipeline_takes_times" in entry:
            line += f"; the pipeline takes {entry['pipeline_takes_times']:.1f} times as long"
        say(line)


if __name__ == "__main__":
    run_command(main)
