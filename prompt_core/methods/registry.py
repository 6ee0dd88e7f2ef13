"""Methods by name: from a configuration, and from a file. Methods of other packages are given by module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.errors import UserError, nearest
from prompt_core.files import read_safetensors
from prompt_core.methods.base import Method
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.from_dassl import load_from_dassl
from prompt_core.methods.ivlp import IVLP
from prompt_core.methods.lasp import LASP
from prompt_core.methods.linear_probe import LinearProbe
from prompt_core.methods.logistic_regression import LogisticRegression
from prompt_core.methods.maple import MaPLe
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.methods.templates import TemplateMethod
from prompt_core.methods.vpt import VPT
from prompt_core.plugins import is_outside, load_object

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary

METHODS: dict[str, type[Method]] = {
    "zero_shot": TemplateMethod,
    "ensemble": TemplateMethod,
    "coop": SoftPromptMethod,
    "pomp": SoftPromptMethod,
    "cocoop": CoCoOp,
    "maple": MaPLe,
    "ivlp": IVLP,
    "vpt": VPT,
    "lasp": LASP,
    "linear_probe": LinearProbe,
    "logistic_regression": LogisticRegression,
}


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Args:
        name: one of :data:`METHODS`, or ``package.module:Class`` of a subclass of :class:`Method` elsewhere.

    Raises:
        UserError: an unknown name, with the nearest, or an object that is not a method.
    """
    if is_outside(name):
        kind = load_object(name, "METHOD.NAME")
        if not (isinstance(kind, type) and issubclass(kind, Method)):
            raise UserError(f"METHOD.NAME is {name!r}, which is not a subclass of prompt_core.methods.base.Method")
        return kind
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}{nearest(name, METHODS)}")
    return METHODS[name]


def build_method(cfg: CfgNode, clip: Clip, vocabulary: Vocabulary | None = None) -> Method:
    """The method that ``cfg.METHOD.NAME`` names, on the device of ``clip``, in evaluation mode.

    Args:
        vocabulary: the classes, for methods that are bound to them.

    Raises:
        UserError: an unknown name, or settings that do not fit the method or the model.
    """
    name = cfg.METHOD.NAME
    if "OPTIONS" in cfg.METHOD and name in METHODS:
        raise UserError(f"METHOD.OPTIONS is for methods of other packages; {name} has its own options under METHOD")
    return method_class(name).from_config(cfg, clip, name, vocabulary).to(clip.device).eval()


def method_file_metadata(path: str | Path) -> dict[str, Any] | None:
    """The metadata of a ``method.safetensors``; None for files of another kind, such as a prompt's."""
    if Path(path).suffix != ".safetensors" or not Path(path).is_file():
        return None
    _, metadata = read_safetensors(Path(path))
    return metadata if "options" in metadata and "method" in metadata else None


def load_method(path: str | Path, clip: Clip, cfg: CfgNode | None = None) -> Method:
    """Read a ``method.safetensors`` that :meth:`Method.save` wrote, or a published checkpoint; in evaluation mode.

    Args:
        path: the file; of a published checkpoint, also the folder of its run
            (:func:`prompt_core.methods.from_dassl.load_from_dassl`).
        cfg: what published checkpoints do not say.

    Raises:
        UserError: an absent or truncated file, one that holds no method, or a CLIP other than it was learned with.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"method file {path} does not exist")
    if path.is_dir() or path.suffix != ".safetensors":
        return load_from_dassl(path, clip, cfg)
    metadata = method_file_metadata(path)
    if metadata is None:
        raise UserError(f"{path} holds no method; a method.safetensors of tools/pretrain_prompt.py is expected")
    if metadata.get("clip_sha256") != clip.fingerprint:
        raise UserError(
            f"{path} was learned with the weights {metadata.get('clip')}, {metadata.get('pretrained')}, which are not "
            f"those of {clip.name}, {clip.pretrained}; give the same with --clip and --pretrained"
        )
    name = metadata["method"]
    try:
        method = method_class(name)(clip, name, **metadata["options"])
    except TypeError as error:
        raise UserError(f"{path} was written by another version: {error}") from error
    tensors, _ = read_safetensors(path)
    method.load_tensors(tensors, path)
    return method.to(clip.device).eval()
