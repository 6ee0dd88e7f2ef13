"""Prompted CLIP text encoding, prompt learning and zero-shot classifiers.

The public names below are loaded on first use, so that importing the package is fast, downloads nothing, sets up no
logging and touches no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_core.lazy import lazy_names

if TYPE_CHECKING:
    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import Clip, load_clip
    from prompt_core.errors import UserError
    from prompt_core.losses import correction_margin, full_softmax_logits, local_contrast_logits
    from prompt_core.metrics import alignment, uniformity
    from prompt_core.negatives import HardSampler, UniformSampler, WeightedSampler
    from prompt_core.prompt import SoftPrompt
    from prompt_core.text.encoder import PromptedTextEncoder
    from prompt_core.vocabulary import Vocabulary

__version__ = "0.1.0"

_HOMES = {
    "Clip": "clip",
    "HardSampler": "negatives",
    "PromptedTextEncoder": "text.encoder",
    "SoftPrompt": "prompt",
    "TextClassifier": "classifier",
    "UniformSampler": "negatives",
    "UserError": "errors",
    "Vocabulary": "vocabulary",
    "WeightedSampler": "negatives",
    "alignment": "metrics",
    "correction_margin": "losses",
    "full_softmax_logits": "losses",
    "load_clip": "clip",
    "local_contrast_logits": "losses",
    "uniformity": "metrics",
}

__all__ = [
    "Clip",
    "HardSampler",
    "PromptedTextEncoder",
    "SoftPrompt",
    "TextClassifier",
    "UniformSampler",
    "UserError",
    "Vocabulary",
    "WeightedSampler",
    "alignment",
    "correction_margin",
    "full_softmax_logits",
    "load_clip",
    "local_contrast_logits",
    "uniformity",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
