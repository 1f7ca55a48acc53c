"""Set2Set: a vector from a set of any size, by attention (Vinyals, Bengio and Kudlur, arXiv:1511.06391)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potnet.nn.aggregate import aggregate, softmax


class Set2Set(nn.Module):
    """Steps of q = LSTM(q*), a_i = softmax(m_i · q), r = sum_i a_i m_i, q* = [q, r].

    As in the paper, the LSTM (without input) sees q* alone: torch-geometric's, which sees q twice, has the
    same outputs with `W_hh` added to the part of `W_ih` that q* = [q, r] has in common with it.

    Args:
        width: Features of a row.
        memory: Features of q, and of m = Linear(row); None takes the rows as they are.
        steps: Times that attention is paid.

    Attributes:
        features: Features of the result, twice those of q.
    """

    def __init__(self, width: int, memory: int | None = None, steps: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.memory = nn.Identity() if memory is None else nn.Linear(width, memory)
        hidden = width if memory is None else memory
        self.features = 2 * hidden
        self.lstm = nn.Linear(2 * hidden, 4 * hidden)

    def forward(self, rows: Tensor, index: Tensor, size: int, times: Tensor | None = None) -> Tensor:
        """Reduce the rows of each set.

        Args:
            rows: (R, width).
            index: (R,) int64 in [0, size), the set of each row.
            size: Number of sets; they may be empty.
            times: (R, 1), equal rows that each stands for. None: each stands for one.

        Returns:
            (size, features).
        """
        memory = self.memory(rows)
        cell = memory.new_zeros(size, self.features // 2)
        query = memory.new_zeros(size, self.features)
        for _ in range(self.steps):
            into, keep, new, out = self.lstm(query).chunk(4, 1)
            cell = keep.sigmoid() * cell + into.sigmoid() * new.tanh()
            q = out.sigmoid() * cell.tanh()
            score = (memory * q.index_select(0, index)).sum(1, keepdim=True)
            read = aggregate(softmax(score, index, size, times) * memory, index, size)
            query = torch.cat([q, read], 1)
        return query
