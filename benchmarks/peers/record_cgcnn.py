"""Record inputs, weights and outputs of the package cgcnn2, for tests/models/test_cgcnn.py.

    pip install torch cgcnn2        # in an environment of its own
    python benchmarks/peers/record_cgcnn.py tests/fixtures/peers/cgcnn.pt

The graphs are random: six crystals of one to five atoms, each atom with exactly twelve neighbours, which
is all that package takes.
"""

from __future__ import annotations

import importlib.metadata
import sys

import torch
from cgcnn2.model import CrystalGraphConvNet

WIDTH, HIDDEN, BINS, NEIGHBORS = 12, 16, 41, 12


def main(path: str) -> None:
    torch.manual_seed(0)
    num_atoms = torch.tensor([1, 2, 5, 3, 4, 1])
    atoms = int(num_atoms.sum())
    batch = torch.arange(len(num_atoms)).repeat_interleave(num_atoms)
    first = (num_atoms.cumsum(0) - num_atoms)[batch]
    neighbor = first[:, None] + (torch.rand(atoms, NEIGHBORS) * num_atoms[batch][:, None]).long()
    distance = 1.0 + 6.0 * torch.rand(atoms, NEIGHBORS)
    features = (torch.rand(atoms, 92) < 0.1).float()
    centers = torch.linspace(0, 8, BINS)
    gaussians = torch.exp(-(((distance[..., None] - centers) / 0.2) ** 2))

    model = CrystalGraphConvNet(92, BINS, WIDTH, n_conv=2, h_fea_len=HIDDEN, n_h=2)
    model.train()
    members = list(torch.arange(atoms).split(num_atoms.tolist()))
    for _ in range(20):  # running statistics that have seen something
        model(features, gaussians, neighbor, members)
    output, _ = model(features, gaussians, neighbor, members)
    output.square().mean().backward()
    gradients = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    model.eval()
    torch.save(
        {
            "versions": {name: importlib.metadata.version(name) for name in ("cgcnn2", "torch")},
            "parameters": sum(p.numel() for p in CrystalGraphConvNet(92, BINS).parameters()),
            "num_atoms": num_atoms,
            "features": features,
            "neighbor": neighbor,
            "distance": distance,
            "state_dict": model.state_dict(),
            "output": model(features, gaussians, neighbor, members)[0].detach().squeeze(-1),
            "train_output": output.detach().squeeze(-1),
            "grad_norms": gradients,
        },
        path,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
