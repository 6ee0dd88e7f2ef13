"""A file of regions for ``MODEL.PROPOSALS.FILE`` from a mask generator, such as Segment Anything's.

``segment_anything`` (arXiv 2304.02643) and ``sam2`` (arXiv 2408.00714) are used where they are installed, with weights
that the user names; anything with the same ``generate`` does as well. Boxes are made anew from the masks: theirs end at
the centre of the last pixel, so that a mask of one column has no width.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as run_lengths

from pomp_engine.data.proposal_files import compressed
from prompt_core.data.photo_files import inside
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, write_json
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.safe_load import load_restricted
from prompt_core.visible import visible_path


class MaskGenerator(Protocol):
    """What ``SamAutomaticMaskGenerator`` and ``SAM2AutomaticMaskGenerator`` are."""

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Regions of (H, W, 3) uint8 in RGB, each with ``segmentation``: (H, W) bool, or run lengths."""


def write_proposals(
    generator: MaskGenerator,
    photos: Sequence[NamedPhoto],
    folder: Path,
    progress: Callable[[str, int], None] | None = None,
    unreadable: list[str] | None = None,
) -> int:
    """Write ``NAME.json`` with the regions of each photo, but for those that are there.

    Args:
        progress: is told the name and the number of regions of each photo that is done.
        unreadable: takes a line for each photo that cannot be read and is left out; None to stop at the first.

    Returns:
        photos that were done now.

    Raises:
        UserError: a photo that cannot be read, or a folder that cannot be written.
    """
    make_output_folder(folder)
    done = 0
    for photo in photos:
        target = folder / f"{inside(photo.name.lstrip('/'), 'the name of a photo')}.json"
        if target.is_file():
            continue
        try:
            pixels = photo.read().copy()  # some generators warn of an array that cannot be written to
        except UserError as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
            continue
        regions = [_plain(region, *pixels.shape[:2]) for region in generator.generate(pixels)]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, regions)
        done += 1
        if progress is not None:
            progress(photo.name, len(regions))
    return done


def _plain(region: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """A region as JSON: mask in compressed run lengths, its box, and how sure the generator is."""
    mask = region["segmentation"]
    if isinstance(mask, np.ndarray):
        encoded = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
        mask = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    mask = compressed(mask, height, width)
    numbers = {key: float(region[key]) for key in ("predicted_iou", "stability_score") if key in region}
    return {"segmentation": mask, "bbox": run_lengths.toBbox(mask).tolist(), **numbers}


def load_generator(model: str, weights: Path, device: str = "cpu", **options: Any) -> MaskGenerator:
    """Segment Anything's automatic mask generator.

    Args:
        model: a name of ``segment_anything``'s registry (``vit_h``, ``vit_l``, ``vit_b``), or a configuration of
            ``sam2`` (``configs/sam2.1/sam2.1_hiera_l.yaml``).
        weights: the published checkpoint, of which only tensors are read.
        options: of the generator.

    Raises:
        UserError: when the package is not installed or does not know the model, the weights are absent or not the
            model's, or the device cannot be used.
    """
    package = "sam2" if model.endswith(".yaml") else "segment_anything"
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed; follow its README, and give its checkpoint")
    if not weights.is_file():
        raise UserError(f"weights {visible_path(weights)} do not exist; download {package}'s checkpoint")
    network = _network_of(package, model, weights)
    try:
        network.to(device)
    except (AssertionError, RuntimeError) as error:  # no such device, or PyTorch was built without it
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if package == "sam2":
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        sam2: MaskGenerator = SAM2AutomaticMaskGenerator(network, **options)
        return sam2
    from segment_anything import SamAutomaticMaskGenerator

    first: MaskGenerator = SamAutomaticMaskGenerator(network, **options)
    return first


def _network_of(package: str, model: str, weights: Path) -> Any:
    state = load_restricted(weights)
    state = state.get("model", state) if isinstance(state, dict) else state
    network = _sam2(model) if package == "sam2" else _segment_anything(model)
    try:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise TypeError("no tensors by name")
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"weights {visible_path(weights)} are not those of {model}") from error
    return network.eval()


def _sam2(model: str) -> Any:
    from hydra.errors import HydraException
    from sam2.build_sam import build_sam2

    try:
        return build_sam2(model, None, device="cpu")
    except HydraException as error:
        raise UserError(
            f"sam2 has no configuration {model!r}; expected one of its own, such as configs/sam2.1/sam2.1_hiera_l.yaml"
        ) from error


def _segment_anything(model: str) -> Any:
    from segment_anything import sam_model_registry

    if model not in sam_model_registry:
        raise UserError(f"segment_anything has no model {model!r}; expected {', '.join(sorted(sam_model_registry))}")
    return sam_model_registry[model](checkpoint=None)
