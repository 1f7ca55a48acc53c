"""Record inputs, weights and outputs of MEGNet in the package matgl, for tests/models/test_megnet.py.

    pip install torch matgl         # in an environment of its own
    python benchmarks/peers/record_megnet.py tests/fixtures/peers/megnet.pt

The graphs are random: six crystals of one to five atoms with one to six neighbours each. The last
activation of matgl's update functions is taken out, which neither the paper nor the group's first code has.
"""

from __future__ import annotations

import importlib.metadata
import sys
from types import SimpleNamespace

import torch
from matgl.models import MEGNet

SIZES = {
    "dim_node_embedding": 5,
    "dim_edge_embedding": 20,
    "hidden_layer_sizes_input": (12, 8),
    "hidden_layer_sizes_conv": (12, 12, 8),
    "hidden_layer_sizes_output": (8, 4),
    "nblocks": 2,
    "niters_set2set": 3,
    "element_types": ("H", "He", "Li", "Be", "B", "C", "N", "O", "F"),
}


def main(path: str) -> None:
    torch.manual_seed(0)
    num_atoms = torch.tensor([1, 2, 5, 3, 4, 1])
    atoms = int(num_atoms.sum())
    batch = torch.arange(len(num_atoms)).repeat_interleave(num_atoms)
    target = torch.arange(atoms).repeat_interleave(torch.randint(1, 7, (atoms,)))
    first = num_atoms.cumsum(0) - num_atoms
    source = first[batch[target]] + (torch.rand(len(target)) * num_atoms[batch[target]]).long()
    vector = torch.randn(len(target), 3)
    species = torch.randint(len(SIZES["element_types"]), (atoms,))

    model = MEGNet(**SIZES)
    for block in model.blocks:
        for update in (block.conv.edge_func, block.conv.node_func, block.conv.state_func):
            update.layers = update.layers[:-1]
    graph = SimpleNamespace(
        node_type=species,
        pos=torch.zeros(atoms, 3),
        edge_index=torch.stack([target, source]),  # matgl sums into the first row
        pbc_offshift=vector,
        batch=batch,
        num_graphs=len(num_atoms),
    )
    output = model(graph, state_attr=torch.zeros(len(num_atoms), 2))
    output.square().mean().backward()
    torch.save(
        {
            "versions": {name: importlib.metadata.version(name) for name in ("matgl", "torch")},
            "parameters": sum(p.numel() for p in MEGNet().parameters() if p.requires_grad),
            "num_atoms": num_atoms,
            "species": species,
            "edge_index": torch.stack([source, target]),
            "edge_vector": vector,
            "state_dict": model.state_dict(),
            "output": output.detach(),
            "grad_norms": {
                n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None
            },
        },
        path,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
