"""Label maps whose borders follow the photo's colours: a fully connected CRF (arXiv 1210.5644), ``TEST.DENSE_CRF``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.errors import UserError


@dataclass(frozen=True)
class CrfOptions:
    """The published numbers (ZSSeg, ``mask_former/utils/post_process_utils.py``).

    Attributes:
        iterations: of mean field inference.
        near, near_weight: deviation in pixels, and weight, of the term by position alone.
        far, colour, far_weight: deviations in pixels and in 0..255, and weight, of the term by position and colour.
    """

    iterations: int = 5
    near: float = 3
    near_weight: float = 3
    far: float = 80
    colour: float = 13
    far_weight: float = 10


def crf_package() -> Any:
    """The module that computes it, of the package pydensecrf2: the original one does not install since Python 3.11.

    Raises:
        UserError: when it is not installed.
    """
    try:
        import pydensecrf.densecrf
    except ImportError as error:
        raise UserError(
            f"TEST.DENSE_CRF needs the package pydensecrf2 ({error}); install it with: pip install pydensecrf2 (it is "
            "compiled, so a C++ compiler has to be there)"
        ) from error
    return pydensecrf.densecrf


def refine(scores: Tensor, photo: np.ndarray, options: CrfOptions | None = None) -> Tensor:
    """Marginal probabilities (C, H, W) of the classes, on the CPU.

    As published, the unary term is the softmax of the scores, although these are no logits: the classes are nearer to
    each other than the segmenter has them.

    Args:
        scores: (C, H, W).
        photo: (H, W, 3) uint8 in RGB.

    Raises:
        UserError: without the package, or for a photo of another size.
    """
    options = options or CrfOptions()
    densecrf = crf_package()
    count, height, width = scores.shape
    if photo.shape != (height, width, 3) or photo.dtype != np.uint8:
        raise UserError(f"a photo of {width} x {height} pixels in uint8 is expected, given {photo.shape} {photo.dtype}")
    unary = -scores.detach().cpu().float().log_softmax(dim=0).clamp(min=float(np.log(1e-5)))
    field = densecrf.DenseCRF2D(width, height, count)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(count, -1).numpy()))
    how = {"kernel": densecrf.DIAG_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    field.addPairwiseGaussian(sxy=(options.near,) * 2, compat=options.near_weight, **how)
    field.addPairwiseBilateral(
        sxy=(options.far,) * 2,
        srgb=(options.colour,) * 3,
        rgbim=np.require(photo, requirements=["C", "W"]),  # one that was read from a file may not be written
        compat=options.far_weight,
        **how,
    )
    marginals = np.asarray(field.inference(options.iterations))
    return torch.from_numpy(marginals.reshape(count, height, width).copy())
