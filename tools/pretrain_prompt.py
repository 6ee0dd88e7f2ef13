"""Learn a soft prompt by local contrast over a large vocabulary, or another method (METHOD.NAME).

    python tools/pretrain_prompt.py --config configs/prompt/mini_tiny_imagenet.yaml --output runs/mini \\
        DATA.TRAIN tiny_imagenet:datasets/tiny-imagenet-200

    python tools/pretrain_prompt.py --config configs/prompt/methods/maple.yaml --output runs/methods/maple

    torchrun --nproc-per-node 4 tools/pretrain_prompt.py --config FILE --output FOLDER

Writes method.safetensors, for soft prompts also prompt.safetensors, metrics.json, log.jsonl, a TensorBoard log and
state.pt. Ctrl-C saves and exits; --resume continues, even after a kill, to the same result.
"""

from prompt_core.command_line import config_parser, parse_with_overrides
from prompt_core.config import load_config
from prompt_core.errors import UserError, run_command
from prompt_core.ranks.torchrun import one_voice, run_in_ranks
from prompt_core.training.recipe import pretrain


def main() -> int:
    """Parse, learn, print where the prompt is."""
    with one_voice():
        parser = config_parser(__doc__)
        parser.add_argument("--resume", action="store_true", help="continue from the state in --output")
        arguments = parse_with_overrides(parser)
        cfg = load_config(arguments.config, arguments.overrides)
        output = arguments.output or cfg.OUTPUT
        if not output:
            raise UserError("no output folder; give --output DIR")
    return run_in_ranks(
        lambda ranks: pretrain(cfg, output, arguments.resume, ranks), cfg.DEVICE, cfg.RANKS.TIMEOUT_MINUTES
    )


if __name__ == "__main__":
    run_command(main)
