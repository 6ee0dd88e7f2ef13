"""``mini`` with its last layer fitted to generated shapes: a CLIP that knows what the scenes show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_core.classifier import TextClassifier

STEPS, RATE, SCALE = 600, 1e-3, 30.0


def fit_clip(pictures: Path, known: TextClassifier, path: Path) -> None:
    """The weights of ``mini`` with its last layer fitted to pictures of single shapes and their words.

    ``mini`` was trained on photos and names drawn shapes by chance; what is distilled from it would say nothing.

    Args:
        pictures: a folder for each class.
        known: the words, by the text tower of ``mini``.
        path: a state dict for ``load_clip("mini", path)``.
    """
    import torch
    import torch.nn.functional as F
    from safetensors.torch import save_file

    from prompt_core.clip import load_clip
    from prompt_core.data.open_photo import open_photo
    from prompt_core.files import atomic_path
    from prompt_core.vocabulary import plain_name

    clip = load_clip("mini")
    visual: Any = clip.model.visual
    rows = {plain_name(name): row for row, name in enumerate(known.names)}
    files = [file for folder in sorted(pictures.iterdir()) if folder.is_dir() for file in sorted(folder.iterdir())]
    labels = torch.tensor([rows[plain_name(file.parent.name)] for file in files])

    @torch.no_grad()
    def maps(some: list[Path]) -> torch.Tensor:
        images = [clip.preprocess(open_photo(file)) for file in some]
        pooled: torch.Tensor = visual.trunk(torch.stack(images))  # (N, F)
        return pooled

    features = torch.cat([maps(files[at : at + 32]) for at in range(0, len(files), 32)])
    last, words = visual.head.proj, F.normalize(known.weight, dim=1)
    last.requires_grad_(True)
    optimizer = torch.optim.AdamW(last.parameters(), RATE)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        batch = torch.randint(len(labels), (256,), generator=generator)
        embeddings = F.normalize(last(features[batch]), dim=1)  # (256, E)
        loss = F.cross_entropy(SCALE * embeddings @ words.T, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in clip.model.state_dict().items()}, temporary)
