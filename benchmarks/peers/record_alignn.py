"""Record graphs, weights and outputs of the package alignn, for tests/models/test_alignn.py.

    pip install torch alignn dgl==1.1.3     # in an environment of its own
    python benchmarks/peers/record_alignn.py tests/fixtures/peers/alignn.pt

Three crystals go through the package's own neighbour search, line graph and network with batch norm (the one
of the paper; the package's later networks have layer norm), the network made small.
"""

from __future__ import annotations

import importlib.metadata
import sys

import dgl
import torch
from alignn.graphs import build_undirected_edgedata as undirected
from alignn.graphs import compute_bond_cosines, nearest_neighbor_edges
from alignn.models.alignn import ALIGNN, ALIGNNConfig
from jarvis.core.atoms import Atoms
from jarvis.core.specie import get_node_attributes

CRYSTALS = {
    "CsCl": ([[4.12, 0, 0], [0, 4.12, 0], [0, 0, 4.12]], [[0, 0, 0], [0.5, 0.5, 0.5]], ["Cs", "Cl"]),
    "rutile": (
        [[4.594, 0, 0], [0, 4.594, 0], [0, 0, 2.959]],
        [
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.305, 0.305, 0],
            [0.695, 0.695, 0],
            [0.195, 0.805, 0.5],
            [0.805, 0.195, 0.5],
        ],
        ["Ti", "Ti", "O", "O", "O", "O"],
    ),
    "triclinic": (
        [[5.1, 0, 0], [0.7, 5.9, 0], [-0.6, 0.9, 6.4]],
        [[0.02, 0.11, 0.05], [0.48, 0.57, 0.13], [0.21, 0.83, 0.61], [0.77, 0.31, 0.55]],
        ["Mg", "Si", "O", "O"],
    ),
}


def main(path: str) -> None:
    torch.manual_seed(0)
    crystals, graphs = [], []
    for name, (cell, fractional, elements) in CRYSTALS.items():
        atoms = Atoms(lattice_mat=cell, coords=fractional, elements=elements, cartesian=False)
        edges, _ = nearest_neighbor_edges(atoms, cutoff=8, max_neighbors=12, id=name, use_canonize=True)
        source, target, vector, _ = undirected(atoms, edges)
        graph = dgl.graph((source, target))
        graph.ndata["atom_features"] = torch.tensor(
            [get_node_attributes(e, "cgcnn") for e in elements]
        ).float()
        graph.edata["r"] = torch.as_tensor(vector).float()
        line = graph.line_graph(shared=True)
        line.apply_edges(compute_bond_cosines)
        graphs.append((graph, line))
        crystals.append(
            {
                "id": name,
                "cell": torch.tensor(cell).double(),
                "positions": torch.tensor(atoms.cart_coords).double(),
                "z": torch.tensor(list(atoms.atomic_numbers)),
                "source": graph.edges()[0],
                "target": graph.edges()[1],
                "vector": graph.edata["r"],
                "angles": line.num_edges(),
                "cosines": line.edata["h"].sort().values,
            }
        )
    sizes = {"hidden_features": 12, "embedding_features": 8, "alignn_layers": 2, "gcn_layers": 2}
    model = ALIGNN(ALIGNNConfig(name="alignn", **sizes)).train()

    def output() -> torch.Tensor:
        batch = (dgl.batch([g for g, _ in graphs]), dgl.batch([line for _, line in graphs]))
        return model((*batch, torch.zeros(len(graphs))))

    for _ in range(20):  # running statistics that have seen something
        output()
    trained = output()
    trained.square().mean().backward()
    gradients = {
        name: 0.0 if p.grad is None else p.grad.norm().item() for name, p in model.named_parameters()
    }
    model.eval()
    torch.save(
        {
            "versions": {name: importlib.metadata.version(name) for name in ("alignn", "dgl", "torch")},
            "parameters": sum(p.numel() for p in ALIGNN().parameters()),
            "crystals": crystals,
            "state_dict": model.state_dict(),
            "output": output().detach(),
            "train_output": trained.detach(),
            "grad_norms": gradients,
        },
        path,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
