"""The small networks of ZS3 and CaGNet: a generator of pixel features, and what CaGNet puts beside it.

Sources: ``zs3/modeling/gmmn.py``; ``networks.py`` of CaGNet and its paper (arXiv 2008.06893), section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

# CaGNet, networks.py: dilations of the three convolutions whose outputs are views of growing width.
DILATIONS = (1, 2, 5)


class FeatureGenerator(nn.Module):
    """A word's embedding and a latent code to a pixel's feature: one hidden layer, as ZS3 has it.

    Args:
        words: width of the embeddings.
        latent: width of the code.
        features: D.
        hidden: 0 for a linear map.
    """

    def __init__(self, words: int, latent: int, features: int, hidden: int = 256) -> None:
        super().__init__()
        given = words + latent
        inner = [nn.Linear(given, hidden), nn.LeakyReLU(0.2), nn.Dropout(0.5)] if hidden else []
        self.layers = nn.Sequential(*inner, nn.Linear(hidden or given, features))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, 0.01)

    def forward(self, words: Tensor, latent: Tensor) -> Tensor:
        """(P, D) from (P, W) and (P, Z)."""
        features: Tensor = self.layers(torch.cat([words, latent], dim=1))
        return features


class ContextualModule(nn.Module):
    """What surrounds each pixel, as the mean and the variance of a latent code (CaGNet's contextual module).

    Three convolutions in a row, each dilated more than the one before, see more and more around a pixel; each pixel
    weighs the three itself.

    Args:
        features: D.
        latent: Z.
        hidden: channels of the convolutions.
    """

    def __init__(self, features: int, latent: int, hidden: int = 256) -> None:
        super().__init__()
        widths = (features, hidden, hidden)
        self.views = nn.ModuleList(
            nn.Conv2d(width, hidden, 3, padding=dilation, dilation=dilation)
            for width, dilation in zip(widths, DILATIONS, strict=True)
        )
        self.weights = nn.Conv2d(3 * hidden, 3, 3, padding=1)
        self.joined = nn.Conv2d(3 * hidden, features, 1)
        self.mean = nn.Conv2d(features, latent, 3, padding=1)
        self.log_variance = nn.Conv2d(features, latent, 3, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, Z, h, w) of the code of each pixel of (B, D, h, w)."""
        views, last = [], features
        for convolution in self.views:
            last = F.relu(convolution(last))
            views.append(last)
        weights = torch.sigmoid(F.relu(self.weights(torch.cat(views, dim=1))))  # (B, 3, h, w)
        weighted = [view * weights[:, place : place + 1] for place, view in enumerate(views)]
        joined = F.relu(self.joined(torch.cat(weighted, dim=1)))  # (B, D, h, w)
        return self.mean(joined), F.relu(self.log_variance(joined))


class Discriminator(nn.Module):
    """Whether a feature (P, D) is real: 1, or generated: 0 (CaGNet; a hidden layer of 1,024 there)."""

    def __init__(self, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(P,) opinions."""
        opinions: Tensor = self.layers(features)[:, 0]
        return opinions


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Gaussians from the unit Gaussian, the mean over all numbers."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()


def adversarial_losses(discriminator: nn.Module, generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's loss and the discriminator's, for one optimiser: neither changes what the other one learns.

    The absolute distances to 1 and 0 that CaGNet's code calls ``lsgan`` (``GANLoss`` with ``use_l1``).

    Args:
        generated: (P, D), with a graph to the generator.
        real: (P', D).
    """
    fixed = {name: value.detach() for name, value in discriminator.named_parameters()}
    fooled: Tensor = functional_call(discriminator, fixed, (generated,))
    told = discriminator(generated.detach()).abs().mean() + (discriminator(real.detach()) - 1).abs().mean()
    return (fooled - 1).abs().mean(), told
