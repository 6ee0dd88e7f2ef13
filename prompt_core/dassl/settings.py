"""YAML files of trainers on Dassl, as they are shipped, read as settings of this toolkit.

What has no counterpart is refused. What changes no number, or is done in another way, is named in one warning. The
table of keys is :mod:`prompt_core.dassl.keys`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prompt_core.dassl.keys import BACKBONES, KEYS, TRAINERS, NoEffect, NotHere, Trainer
from prompt_core.errors import UserError, nearest

_SECTIONS = ("TRAINER.", "INPUT.", "DATASET.", "DATALOADER.", "TRAIN.", "TEST.", "MODEL.BACKBONE.", "MODEL.HEAD.")
_SHARED = ("SEED", "OPTIM.LR", "OPTIM.MOMENTUM", "OPTIM.WEIGHT_DECAY")  # keys of both
# Learned tokens that may start from words; with more of them MaPLe and IVLP start from random vectors alone.
_FROM_WORDS = 4


def is_dassl(settings: Iterable[tuple[str, Any]]) -> bool:
    """Whether a file's settings, pairs of a dotted key and a value, are those of a trainer on Dassl."""
    return any(_is_theirs(key) and key not in _SHARED for key, _ in settings)


def _is_theirs(key: str) -> bool:
    return key in KEYS or key.startswith(_SECTIONS)


def translate(settings: Iterable[tuple[str, Any]], file: str | Path) -> list[tuple[str, Any]]:
    """Settings of a file and of the command line, some of them Dassl's, in this toolkit's keys.

    Args:
        settings: pairs of a dotted key and a value, later ones before earlier ones; other keys are kept.
        file: where they come from; its folder names the trainer where nothing else does, as in the published
            repositories (``configs/trainers/CoOp/vit_b16.yaml``).

    Raises:
        UserError: an unknown key of Dassl (with the nearest), a value that cannot be honoured, or no trainer's name.
    """
    given = list(settings)
    theirs = {key: value for key, value in given if _is_theirs(key)}
    name = _trainer_name(theirs, file)
    trainer = TRAINERS[name]
    sections = {f"TRAINER.{trainer.section}.{key}": rule for key, rule in trainer.keys.items()}
    known = KEYS | sections
    for key in theirs:
        if key not in known:
            raise UserError(f"unknown key {key!r} of trainer {name} in {file}{nearest(key, known)}")
    precision = {"PREC": "fp16"} if "PREC" in trainer.keys else {}
    starts = {f"TRAINER.{trainer.section}.{key}": value for key, value in {**precision, **trainer.defaults}.items()}
    values = {"DATASET.NUM_SHOTS": -1, "DATALOADER.K_TRANSFORMS": 1, "TEST.SPLIT": "test"} | starts | theirs
    ours: dict[str, Any] = {"METHOD.NAME": trainer.method, "LOSS.REJECT": "id", "EVAL.NAMESAKES": "separate"}
    ours |= trainer.always
    notes = []
    # In the order of the table, so that a setting may undo one before it.
    for key, rule in known.items():
        if key in values:
            try:
                ours |= rule(values[key])
            except NoEffect as effect:
                notes.append(f"{key} ({effect})" if str(effect) else key)
            except NotHere as error:
                raise UserError(f"{key} is {values[key]!r} in {file}; {error}") from error
            except (TypeError, AttributeError) as error:
                raise UserError(f"{key} is {values[key]!r} in {file}; a value of another type is expected") from error
    ours |= _with_others(values, ours, trainer, file)
    notes += _more_notes(values, trainer)
    if notes:
        text = f"{file} is read as a file of Dassl's trainer {name}; not followed: {', '.join(notes)}"
        warnings.warn(text, stacklevel=3)
    return [*ours.items(), *((key, value) for key, value in given if not _is_theirs(key))]


def _trainer_name(theirs: Mapping[str, Any], file: str | Path) -> str:
    name = theirs.get("TRAINER.NAME", "")
    if not name:
        sections = {key.split(".")[1] for key in theirs if key.startswith("TRAINER.") and key != "TRAINER.NAME"}
        of_sections = [known for known, trainer in TRAINERS.items() if trainer.section and trainer.section in sections]
        name = of_sections[0] if len(of_sections) == 1 else Path(file).absolute().parent.name
    if name not in TRAINERS:
        hint = nearest(name, TRAINERS) if "TRAINER.NAME" in theirs else ""
        raise UserError(
            f"{file} is a file of Dassl without a trainer that is known here; add TRAINER.NAME and one of "
            f"{', '.join(TRAINERS)}{hint}"
        )
    return name


def _with_others(
    values: Mapping[str, Any], ours: Mapping[str, Any], trainer: Trainer, file: str | Path
) -> dict[str, Any]:
    """Settings that depend on more than one of theirs."""
    more: dict[str, Any] = {}
    size, backbone = values.get("INPUT.SIZE"), values.get("MODEL.BACKBONE.NAME")
    if size is not None and backbone in BACKBONES and tuple(size) != (BACKBONES[backbone][1],) * 2:
        raise UserError(f"INPUT.SIZE is {size} in {file}; {backbone} takes {BACKBONES[backbone][1]} pixels")
    if data_set := values.get("DATASET.NAME"):
        root = values.get("DATASET.ROOT")
        source = f"{data_set}:{Path(root).expanduser()}" if root else data_set
        more |= {"DATA.TRAIN": source, "EVAL.DATASETS": (source,)}
    elif values.get("DATASET.ROOT"):
        raise UserError(f"DATASET.ROOT is given in {file} without DATASET.NAME; give both, or DATA.TRAIN NAME:FOLDER")
    chooses = values.get("TEST.FINAL_MODEL") == "best_val" and not values.get("TEST.NO_TEST", False)
    more["SELECT.ON"] = "val" if chooses else "last"
    if trainer.method == "pomp":
        more["LOSS.GROUP"] = ours.get("OPTIM.BATCH", 32)
    for section in ("MAPLE", "IVLP"):
        if ours.get(f"METHOD.{section}.N_CTX", 0) > _FROM_WORDS:
            more[f"METHOD.{section}.WORDS"] = ""
    return more


def _more_notes(values: Mapping[str, Any], trainer: Trainer) -> list[str]:
    notes = []
    if trainer.method in ("coop", "cocoop", "pomp", "linear_probe"):
        notes.append("augmentation anew in each epoch (AUGMENT.STORED_VIEWS are stored)")
    if values.get("DATALOADER.TRAIN_X.SAMPLER") == "DistributedSampler":
        notes.append("the batch of each of several processes (give OPTIM.BATCH, the images of all)")
    if values.get("TRAINER.POMP.EPT") is False:
        notes.append("TRAINER.POMP.UPDATE_CLASS_NUM (with TRAINER.POMP.EPT False all classes are in the loss)")
    if "OPTIM.NAME" not in values:
        notes.append("Dassl's default optimiser, adam (it is SGD here)")
    if trainer.method == "promptsrc":
        notes.append("the losses of PromptSRC (its checkpoints are scored, nothing is learned)")
    return notes
