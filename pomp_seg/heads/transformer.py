"""The transformer decoder that turns queries into mask proposals (DETR, arXiv 2005.12872, as MaskFormer uses it)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the image, feed-forward network; queries and keys get positions."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        """
        Args:
            pre_norm: normalise before each part instead of after it.
        """
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout, self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(4))
        self.pre_norm = pre_norm

    def forward(self, queries: Tensor, memory: Tensor, query_positions: Tensor, memory_positions: Tensor) -> Tensor:
        """Queries (Q, B, D) and image features (H * W, B, D), with positions of these shapes, to queries (Q, B, D)."""
        states = self.norm1(queries) if self.pre_norm else queries
        placed = states + query_positions
        queries = queries + self.dropout1(self.self_attn(placed, placed, states, need_weights=False)[0])
        queries = queries if self.pre_norm else self.norm1(queries)

        states = self.norm2(queries) if self.pre_norm else queries
        attended = self.multihead_attn(states + query_positions, memory + memory_positions, memory, need_weights=False)[
            0
        ]
        queries = queries + self.dropout2(attended)
        queries = queries if self.pre_norm else self.norm2(queries)

        states = self.norm3(queries) if self.pre_norm else queries
        queries = queries + self.dropout3(self.linear2(self.dropout(F.relu(self.linear1(states)))))
        return queries if self.pre_norm else self.norm3(queries)


class Decoder(nn.Module):
    """Layers in sequence; the output of each goes through one common norm."""

    def __init__(self, layers: int, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, feedforward, dropout, pre_norm) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, memory: Tensor, query_positions: Tensor, memory_positions: Tensor) -> Tensor:
        """Queries after each of the L layers, (L, Q, B, D)."""
        states = []
        for layer in self.layers:
            queries = layer(queries, memory, query_positions, memory_positions)
            states.append(self.norm(queries))
        return torch.stack(states)


class Transformer(nn.Module):
    """Only the decoder: the published segmenters have no encoder layers."""

    def __init__(self, layers: int, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.decoder = Decoder(layers, width, heads, feedforward, dropout, pre_norm)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, positions: Tensor, query_positions: Tensor) -> Tensor:
        """
        Args:
            features: (B, D, H, W).
            positions: (1, D, H, W).
            query_positions: (Q, D), learned.

        Returns:
            (L, B, Q, D), queries after each layer; they start from zero.
        """
        memory = features.flatten(2).permute(2, 0, 1)  # (H * W, B, D)
        memory_positions = positions.flatten(2).permute(2, 0, 1)
        placed = query_positions[:, None].expand(-1, len(features), -1)  # (Q, B, D)
        states = self.decoder(torch.zeros_like(placed), memory, placed, memory_positions)
        return states.transpose(1, 2)  # (L, B, Q, D)
