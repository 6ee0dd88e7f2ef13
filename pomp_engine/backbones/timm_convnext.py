"""A ConvNeXt of timm as bottom-up network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from detectron2.modeling import Backbone
from torch import Tensor

from prompt_core.errors import UserError, nearest

# The authors' names (arXiv 2201.03545) of what timm calls otherwise.
_RENAMED = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
)


class TimmConvNeXt(Backbone):
    """Stages of a timm ConvNeXt; ``layer{l}`` is the output of stage l, of stride ``2 ** (l + 1)``.

    Levels are counted as Detic does (``detic/modeling/backbone/timm.py``): a ConvNeXt's first stage is ``layer1``, of
    stride 4, where a ResNet's is ``layer2``. State-dict names are the published ones, ``base.stem_0.weight`` to
    ``base.stages_3.…``.
    """

    def __init__(self, name: str, out_levels: Sequence[int] = (2, 3, 4), freeze_at: int = 0) -> None:
        """
        Args:
            name: a ConvNeXt of timm; an ending ``_21k`` is taken off, it names weights.
            out_levels: levels of the features, of 1 to 4.
            freeze_at: levels that do not train: 1 the stem, 2 the first stage too, …

        Raises:
            UserError: an unknown name, or levels that it does not have.
        """
        super().__init__()
        known, architecture = timm.list_models("convnext*"), name.removesuffix("_21k")
        if architecture not in known:
            raise UserError(f"MODEL.TIMM.BASE_NAME is {name!r}, no ConvNeXt of timm{nearest(architecture, known)}")
        if not out_levels or not set(out_levels) <= {1, 2, 3, 4}:
            raise UserError(f"MODEL.TIMM.OUT_LEVELS is {list(out_levels)}; a ConvNeXt has the levels 1, 2, 3, 4")
        # Detic's rates of stochastic depth.
        drop_path = 0.2 if "tiny" in architecture or "small" in architecture else 0.3
        indices = [level - 1 for level in out_levels]
        self.base: Any = timm.create_model(
            architecture, features_only=True, out_indices=indices, drop_path_rate=drop_path
        )
        frozen = ["stem_0", "stem_1"] if freeze_at >= 1 else []
        for part in frozen + [f"stages_{stage}" for stage in range(min(freeze_at - 1, 4))]:
            getattr(self.base, part).requires_grad_(False)
        info: Any = self.base.feature_info
        self._out_features = [f"layer{level}" for level in out_levels]
        self._out_feature_channels = dict(zip(self._out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._out_features, info.reduction(), strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features (B, C, H / 2**(l + 1), W / 2**(l + 1)) of each output level l."""
        return dict(zip(self._out_features, self.base(x), strict=True))

    def from_classifier(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """A classification network's weights under this backbone's names, or None for those of another network.

        Args:
            state: a ConvNeXt with its authors' names or timm's; what follows the last stage is left out.
        """
        renamed = {}
        for key, value in state.items():
            for pattern, name in _RENAMED:
                key = re.sub(pattern, name, key)
            renamed[re.sub(r"^(stem|stages)\.(\d)\.", r"base.\1_\2.", key)] = value
        if "base.stem_0.weight" not in renamed:
            return None
        return {key: value for key, value in renamed.items() if key.startswith("base.")}
