"""PotNet against outputs and gradients of the released code, on small networks with its weights."""

from pathlib import Path

import pytest
import torch
from batch_examples import batch_with_vectors
from torch import nn

from potnet.crystals.batch import CrystalBatch
from potnet.models import PublishedPotNet
from potnet.models.potnet_published import published_to_own_name

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
VARIANTS = ("complete", "euclidean", "transformer")


class GivenFeatures(nn.Module):
    """The fixture's features of atoms are random zeros and ones, not those of any element."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, batch: CrystalBatch) -> torch.Tensor:
        return self.features


@pytest.fixture(scope="module")
def batch() -> CrystalBatch:
    stored = torch.load(FIXTURES / "inputs.pt", weights_only=True)
    inputs = stored["inputs"]
    vectors = torch.zeros(len(inputs["edge_attr"]), 3)
    vectors[:, 0] = inputs["edge_attr"]  # stored as distances
    return batch_with_vectors(
        vectors,
        ids=stored["ids"],
        # As each has features of its own, an element of its own.
        z=torch.arange(1, len(inputs["batch"]) + 1),
        batch=inputs["batch"],
        num_atoms=torch.bincount(inputs["batch"]),
        edge_index=inputs["edge_index"],
        pair_index=inputs["inf_edge_index"],
        pair_sums=inputs["inf_edge_attr"],
    )


def load(name: str) -> tuple[PublishedPotNet, dict]:
    stored = torch.load(FIXTURES / f"{name}.pt", weights_only=True)
    local = "distance" if name == "euclidean" else "potential"
    model = PublishedPotNet.load_published(stored["state_dict"], local, stored["kwargs"]["potentials"])
    inputs = torch.load(FIXTURES / "inputs.pt", weights_only=True)["inputs"]
    model.elements = GivenFeatures(inputs["x"])
    return model, stored


def doubled(model: PublishedPotNet, batch: CrystalBatch) -> tuple[PublishedPotNet, CrystalBatch]:
    return model.double(), batch.double()


def training_step(model: PublishedPotNet, batch: CrystalBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Outputs in training mode, and the norm of the gradient of mean(output²) in every parameter."""
    output = model.train()(batch)["value"]
    output.square().mean().backward()
    norms = {k: p.grad.norm().item() for k, p in model.named_parameters() if p.grad is not None}
    return output.detach(), norms


@pytest.mark.parametrize("name", VARIANTS)
def test_evaluation_output(name, batch):
    model, stored = load(name)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch)["value"], stored["output"], rtol=1e-5, atol=1e-5)


# Some channels of the batch norm on pairs vary by 1e-3 of their mean, so it amplifies rounding: two
# ways of writing the same network in float32 differ by 1e-4 in training mode.
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_training_output_and_gradients(name, double, batch):
    model, stored = load(name)
    output, norms = training_step(*(doubled(model, batch) if double else (model, batch)))
    tolerance = 1e-4 if double else 2e-4
    torch.testing.assert_close(output.float(), stored["train_output"], rtol=tolerance, atol=tolerance)
    expected = {published_to_own_name(k): v for k, v in stored["grad_norms"].items()}
    assert norms.keys() == expected.keys()
    scale = max(expected.values())
    for key in expected:
        assert norms[key] == pytest.approx(expected[key], rel=2e-3, abs=1e-5 * scale), key


@pytest.mark.parametrize("name", VARIANTS)
def test_float32_is_as_exact_as_the_released_code(name, batch):
    exact, _ = training_step(*doubled(load(name)[0], batch))
    output, _ = training_step(load(name)[0], batch)
    released = load(name)[1]["train_output"]
    assert (output - exact).abs().max() < 5 * (released - exact).abs().max()


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 1_751_809),
        ({"local": "distance", "pairs": "none"}, 1_734_657),
        ({"pairs": "attention"}, 2_744_833),
    ],
)
def test_number_of_parameters(options, parameters):
    assert sum(p.numel() for p in PublishedPotNet(**options).parameters()) == parameters


def test_foreign_weights_are_refused():
    _, stored = load("complete")
    weights = dict(stored["state_dict"])
    with pytest.raises(ValueError, match=r"atom_embedding\.weight is missing"):
        PublishedPotNet.load_published({"layer.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"unexpected \['extra'\]"):
        PublishedPotNet.load_published({**weights, "extra": torch.zeros(1)})
    del weights["fc_out.bias"]
    with pytest.raises(ValueError, match=r"missing \['heads\.value\.output\.bias'\]"):
        PublishedPotNet.load_published(weights)
