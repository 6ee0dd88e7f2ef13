"""Backbones from outside the toolkit: ``MODEL.BACKBONE.NAME my_package.my_module:build_my_backbone``."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY

from prompt_core.errors import UserError
from prompt_core.plugins import is_outside, load_object


def register_outside_backbone(cfg: CfgNode) -> CfgNode:
    """Register the builder that ``MODEL.BACKBONE.NAME`` names by module, if it does, with Detectron2.

    The builder is called as ``builder(cfg, input_shape)`` and returns a ``detectron2.modeling.Backbone``.

    Returns:
        the configuration that Detectron2 builds from, where the builder goes by its registered name.

    Raises:
        UserError: a module that cannot be imported, a name that it lacks, or an object that cannot be called.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if not is_outside(name):
        return cfg
    builder = load_object(name, "MODEL.BACKBONE.NAME")
    if not callable(builder):
        raise UserError(f"MODEL.BACKBONE.NAME is {name!r}, which is not a function; expected builder(cfg, input_shape)")
    registered = builder.__name__
    if registered in BACKBONE_REGISTRY and BACKBONE_REGISTRY.get(registered) is not builder:
        raise UserError(
            f"MODEL.BACKBONE.NAME: another backbone is called {registered}; give your function another name"
        )
    if registered not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(builder)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.NAME = registered
    return cfg
