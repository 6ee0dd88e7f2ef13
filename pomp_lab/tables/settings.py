"""Settings of a run: those that decide its numbers, those that a report shows, and where it ran."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pomp_lab.tables.jobs import Job
from prompt_core.config import flatten
from prompt_core.evaluation.protocol import processor_name
from prompt_core.files import sha256_of_json
from prompt_core.methods.base import Method

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

# Keys that decide no number: where things are and how fast, and what identities say by content.
_PLACES = ("OUTPUT", "DEVICE", "SEED", "LOG", "DATA.TRAIN", "DATA.CLASSES", "DATA.VOCABULARY", "DATA.CACHE")
_SPEED = ("DATA.WORKERS", "DATA.ENCODE_BATCH", "MODEL.NAME", "MODEL.PRETRAINED", "EVAL.NAMESAKES", "EVAL.DATASETS")


def deciding_settings(cfg: CfgNode) -> dict[str, Any]:
    """All keys that a learned method depends on, flat; of ``METHOD`` those of its own method."""
    flat = dict(flatten(cfg))
    own = f"METHOD.{cfg.METHOD.NAME.upper()}."
    kept = {}
    for key, value in flat.items():
        if key.startswith(("LOG.", "METHOD.")) and key != "METHOD.NAME" and not key.startswith(own):
            continue
        if key in _PLACES or key in _SPEED or (key.startswith("EVAL.") and not flat.get("SELECT_ON_TEST")):
            continue
        kept[key] = list(value) if isinstance(value, tuple) else value
    return kept


def shown_settings(job: Job, method: Method) -> dict[str, Any]:
    """What tells a row's runs from others in a report; the same for all seeds."""
    settings: dict[str, Any] = {"method": method.name, "clip": method.clip.name, "clip_sha256": method.clip.fingerprint}
    if job.learns:
        cfg = job.cfg
        settings |= {key: value for key, value in deciding_settings(cfg).items() if key != "METHOD.NAME"}
        settings |= {"K": cfg.LOSS.NUM_CLASSES, "correction": cfg.LOSS.CORRECTION, "negatives": _negatives(job)}
    else:
        settings["options_sha256"] = sha256_of_json(method.options)
    return {**settings, "seed": job.seed}


def _negatives(job: Job) -> str:
    return "wide vocabulary" if job.row.wide else "own classes"


def machine(device: Any) -> str:
    """What times are compared on."""
    import torch

    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def plain_command(command: str) -> str:
    """A command without the folders of the machine."""
    return " ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in command.split(" "))
