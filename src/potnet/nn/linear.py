"""Linear layers on concatenations, with the work that repeats done once."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from potnet.nn.edges import Edges


class EdgeLinear(nn.Module):
    """Linear on the concatenation [x_i, x_j, e] of every edge, without building it.

    W [x_i, x_j, e] + b = W_i x_i + W_j x_j + W_e e + b: the first two are products over the N nodes
    rather than the E edges. The parameters are those of the plain layer, so weights are exchangeable
    with `nn.Linear(2 * node + edge, out)`.

    Args:
        node: Features of an atom.
        edge: Features of an edge.
        out: Features of the result.
    """

    def __init__(self, node: int, edge: int, out: int) -> None:
        super().__init__()
        plain = nn.Linear(2 * node + edge, out)
        self.node, self.edge = node, edge
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: Tensor, edges: Edges, of_atoms: Tensor | None = None) -> Tensor:
        """Apply to every edge, i being its target and j its source.

        Args:
            x: (N, node) features of nodes: atoms, or classes of them.
            edges: E edges with `edge` features.
            of_atoms: (N, out), added to the results of all edges of a target; None adds nothing.

        Returns:
            (E, out).
        """
        of_target, of_source, of_edge = self.weight.split([self.node, self.node, self.edge], 1)
        result = edges.per_edge(F.linear(edges.features, of_edge))
        at_target = F.linear(x, of_target, self.bias)
        if of_atoms is not None:
            at_target = at_target + of_atoms
        # In place: at this size a pass over new memory costs as much as a tenth of the product.
        result += at_target.index_select(0, edges.target)
        result += F.linear(x, of_source).index_select(0, edges.source)
        return result

    def extra_repr(self) -> str:
        return f"node={self.node}, edge={self.edge}, out={len(self.weight)}"
