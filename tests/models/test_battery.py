"""What every network must pass. A new model is one line in `MODELS` or in `BASELINES`."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from potnet.config import build as build_from
from potnet.config import compose, plain
from potnet.crystals import Crystal, CrystalBatch, collate, from_ase, standardize
from potnet.data.features.featurizer import NEEDS, Featurizer
from potnet.models import PotNet, PublishedPotNet
from potnet.training.closed_form import is_closed_form

SMALL = {"width": 24, "layers": 2, "local_bins": 24, "pair_bins": 16}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "potnet": SMALL,
    "potnet-channels": {**SMALL, "coefficients": None},
    "potnet-attention": {**SMALL, "pairs": "attention"},
    "potnet-distances": {**SMALL, "local": "distance", "pairs": "none"},
    "potnet-groups": {**SMALL, "group_features": True},
    "branched": {**SMALL, "edge_width": 12},
    "branched-combined": {**SMALL, "edge_width": 12, "coefficients": [-0.801, -0.074, 0.145]},
    "branched-angles": {**SMALL, "edge_width": 12, "angular": 4, "angular_cutoff": 4.0},
    "branched-charges": {**SMALL, "edge_width": 12, "charges": 3},
    "branched-local": {
        **SMALL,
        "edge_width": 12,
        "local": "distance",
        "local_range": [1, 4],
        "pairs": "none",
    },
}


def own(name: str) -> Callable[[], nn.Module]:
    kind = PublishedPotNet if name.startswith("potnet") else PotNet
    return lambda: kind(**ARGUMENTS[name])


MODELS: dict[str, Callable[[], nn.Module]] = {name: own(name) for name in ARGUMENTS}

#: Networks as conf/model has them, with the neighbours that their configs ask for, made small.
BASELINES: dict[str, list[str]] = {
    "cgcnn": ["model.width=24", "model.hidden=64", "model.layers=2"],
    "schnet": ["model.width=24", "model.layers=2"],
    "megnet": ["model.width=24"],
    "gatgnn": ["model.width=24", "model.layers=2"],
    "alignn": ["model.width=24", "model.embedding=16", "model.alignn_layers=2", "model.gcn_layers=1"],
    "matformer": ["model.width=24", "model.layers=2", "model.attention_heads=2"],
    "leignn": ["model.width=24", "model.layers=2", "model.bins=16"],
    "potnet_ff": ["model.width=48", "model.layers=1"],
    "mbtr_krr": ["model.noises=[1e-6]"],
}


@cache
def settings(name: str) -> dict[str, Any]:
    config = compose("train", [f"model={name}", *BASELINES[name]])
    return {key: plain(config[key]) for key in ("model", "features")}


def baseline(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = build_from(settings(name)["model"], "model", nested=False)
        model.battery_features = Featurizer(**settings(name)["features"], device="cpu")
        return model

    return make


MODELS |= {name: baseline(name) for name in BASELINES}

#: What a model is known not to pass: {(model, test): reason}. A reason that no longer holds fails.
EXCEPTIONS: dict[tuple[str, str], str] = {
    **{
        ("mbtr_krr", test): "fitted in closed form: it has no gradient, and one head"
        for test in (
            "test_several_heads_at_once",
            "test_heads_of_atoms_alone_reach_every_trainable_parameter",
            "test_embedding_is_what_heads_read",
            "test_outputs_of_atoms_follow_their_order",
            "test_extensive_outputs_grow_with_the_cell",
            "test_save_and_reload_several_heads",
            "test_gradients_are_finite_and_reach_every_parameter",
            "test_training_on_a_batch_of_one",
            "test_five_steps_overfit_one_batch",  # in its place: test_kernel_ridge.py
            "test_half_precision_by_autocast",
        )
    },
    ("potnet_ff", "test_embedding_is_what_heads_read"): "extensive outputs have long-range energies added",
    ("potnet_ff", "test_compiles_into_one_graph"): "long-range energies are planned on the host",
    ("mbtr_krr", "test_compiles_into_one_graph"): "how much is computed depends on the descriptors' overlap",
}

FEATURES = Featurizer(
    cell="primitive",
    neighbors={"cutoff": 4.0},
    potentials=[
        {"_target_": "potnet.lattice.Coulomb"},
        {"_target_": "potnet.lattice.London"},
        {"_target_": "potnet.lattice.Pauli", "alpha": 3.0},
    ],
    accuracy=1e-8,
    device="cpu",
)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def build(name: str) -> nn.Module:
    """A model in evaluation mode whose running statistics have seen a batch, or that has been fitted."""
    torch.manual_seed(7)
    model = MODELS[name]().train()
    if is_closed_form(model):
        model.fit([batch_of(model, ALL)], torch.linspace(-1, 1, len(ALL)))
        return model.eval()
    batch = batch_of(model, list(CRYSTALS.values()))
    with torch.no_grad():
        for _ in range(20):
            model(batch)
    return model.eval()


def batch_of(model: nn.Module, crystals: list[Crystal]) -> CrystalBatch:
    features = getattr(model, "battery_features", FEATURES)
    return collate(features.restricted(model.needs).featurize(crystals))


def crystal(symbols, basis, group, cellpar, id) -> Crystal:
    from ase.spacegroup import crystal as ase_crystal

    return from_ase(ase_crystal(symbols, basis, spacegroup=group, cellpar=cellpar), id=id)


def cubic(a: float) -> list[float]:
    return [a, a, a, 90, 90, 90]


CRYSTALS = {
    "NaCl": crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], 225, cubic(5.64), "NaCl"),
    "diamond": crystal(["C"], [(0, 0, 0)], 227, cubic(3.567), "diamond"),
    "SrTiO3": crystal(
        ["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], 221, cubic(3.905), "SrTiO3"
    ),
    "Al2O3": crystal(
        ["Al", "O"], [(0, 0, 0.3522), (0.3063, 0, 0.25)], 167, [4.7587, 4.7587, 12.9929, 90, 90, 120], "Al2O3"
    ),
    "quartz": crystal(
        ["Si", "O"],
        [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.1191 + 1 / 3)],
        152,
        [4.9137, 4.9137, 5.4047, 90, 90, 120],
        "quartz",
    ),
}
ONE_ATOM = Crystal(
    np.array([[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]]), np.zeros((1, 3)), np.array([29]), "Cu"
)
LOW_SYMMETRY = Crystal(
    np.array([[4.1, 0.2, -0.1], [0.3, 4.7, 0.4], [-0.2, 0.5, 5.3]]),
    np.array([[0.1, 0.2, 0.3], [2.0, 0.4, 2.9], [0.6, 2.4, 1.5], [2.2, 2.6, 4.4]]),
    np.array([6, 8, 8, 14]),
    "low symmetry",
)
ISOLATED = Crystal(12.0 * np.eye(3), np.zeros((1, 3)), np.array([18]), "Ar, no neighbours")
ALL = [*CRYSTALS.values(), ONE_ATOM, ISOLATED]


def moved(c: Crystal, rotation=None, shift=(0, 0, 0), order=None) -> Crystal:
    rotation = np.eye(3) if rotation is None else rotation
    order = np.arange(len(c.z)) if order is None else order
    positions = (c.positions + np.asarray(shift)) @ rotation.T
    return Crystal(c.cell @ rotation.T, positions[order], c.z[order], c.id)


def repeated(c: Crystal, matrix) -> Crystal:
    """The same crystal in the cell `matrix @ cell`."""
    from ase import Atoms
    from ase.build import make_supercell

    atoms = make_supercell(Atoms(numbers=c.z, positions=c.positions, cell=c.cell, pbc=True), matrix)
    return from_ase(atoms, id=c.id)


def value(model: nn.Module, batch: CrystalBatch) -> Tensor:
    """The output of a model that has one head."""
    (output,) = model(batch).values()
    return output


def predict(model: nn.Module, crystals: list[Crystal]) -> Tensor:
    with torch.no_grad():
        return value(model, batch_of(model, crystals))


@pytest.fixture(params=list(MODELS))
def name(request) -> str:
    test = request.node.originalname
    if reason := EXCEPTIONS.get((request.param, test)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return request.param


def test_the_test_crystals_are_what_they_say():
    sizes = {key: len(FEATURES.featurize([value])[0].z) for key, value in CRYSTALS.items()}
    assert sizes == {"NaCl": 2, "diamond": 2, "SrTiO3": 5, "Al2O3": 10, "quartz": 9}
    assert FEATURES.featurize([ISOLATED])[0].edge_index.shape == (2, 0)


def test_declares_its_needs(name):
    model = MODELS[name]()
    assert model.needs <= set(NEEDS)
    with pytest.raises(ValueError, match="featurize with"):
        model(collate(Featurizer(neighbors=None, device="cpu").featurize([ONE_ATOM])))


def test_tells_crystals_apart(name):
    predictions = predict(build(name), ALL)
    assert predictions.shape == (len(ALL),)
    assert predictions.isfinite().all()
    assert len(predictions.unique()) == len(ALL)


def test_rotation_and_reflection(name):
    model = build(name)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    expected = predict(model, ALL)
    for matrix in (rotation, -rotation):
        close(predict(model, [moved(c, rotation=matrix) for c in ALL]), expected)


def test_translation(name):
    model = build(name)
    close(predict(model, [moved(c, shift=(0.3, -7.1, 21.7)) for c in ALL]), predict(model, ALL))


def test_permutation(name):
    model = build(name)
    rng = np.random.default_rng(2)
    permuted = [moved(c, order=rng.permutation(len(c.z))) for c in ALL]
    close(predict(model, permuted), predict(model, ALL))


def test_choice_of_cell(name):
    model = build(name)
    expected = predict(model, ALL)
    for matrix in (np.diag([2, 1, 3]), np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]])):
        close(predict(model, [repeated(c, matrix) for c in ALL]), expected)


def test_batch_equals_loop(name):
    model = build(name)
    close(predict(model, ALL), torch.cat([predict(model, [c]) for c in ALL]))


def test_gradients_are_finite_and_reach_every_parameter(name):
    model = build(name).train()
    value(model, batch_of(model, ALL)).square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{key} has no gradient"
            assert parameter.grad.isfinite().all(), key


HEADS = {
    "gap": {},
    "tensor": {"outputs": 6},
    "energy": {"extensive": True},
    "charge": {"per": "atom"},
    "vector": {"outputs": 3, "per": "atom"},
}


def with_heads(name: str, heads: dict[str, Any] = HEADS, as_given: bool = False) -> nn.Module:
    """An untrained model with these heads."""
    torch.manual_seed(7)
    if name in BASELINES:
        model = build_from({**settings(name)["model"], "heads": heads}, "model", nested=False)
        features = settings(name)["features"]
    else:
        model, features = type(MODELS[name]())(**ARGUMENTS[name], heads=heads), FEATURES.settings()
    if as_given:
        features = {**features, "cell": "as_given"}
    model.battery_features = Featurizer(**{**features, "device": "cpu"})
    return model.eval()


def outputs(model: nn.Module, crystals: list[Crystal]) -> dict[str, Tensor]:
    with torch.no_grad():
        return model(batch_of(model, crystals))


def test_several_heads_at_once(name):
    model = with_heads(name)
    found = outputs(model, ALL)
    atoms = len(batch_of(model, ALL).z)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "gap": (len(ALL),),
        "tensor": (len(ALL), 6),
        "energy": (len(ALL),),
        "charge": (atoms,),
        "vector": (atoms, 3),
    }
    # Each learns: the gradient of one head does not reach another.
    output = model.train()(batch_of(model, ALL))
    output["gap"].square().sum().backward()
    reached = {key for key, p in model.heads.named_parameters() if p.grad is not None}
    assert reached == {key for key, _ in model.heads.named_parameters() if key.startswith("gap.")}


def test_heads_of_atoms_alone_reach_every_trainable_parameter(name):
    model = with_heads(name, {"energy": {"extensive": True}}).train()
    model(batch_of(model, ALL))["energy"].square().sum().backward()
    silent = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


def test_embedding_is_what_heads_read(name):
    model = with_heads(name)
    batch = batch_of(model, ALL)
    with torch.no_grad():
        embedding = model.embed(batch)
        assert len(embedding.atoms) == len(batch.z)
        assert len(embedding.crystals) == len(ALL)
        for key, head in model.heads.items():
            assert torch.equal(head(embedding, batch), model(batch)[key])


def test_outputs_of_atoms_follow_their_order(name):
    model = with_heads(name, as_given=True)
    crystal = standardize(LOW_SYMMETRY)
    order = np.random.default_rng(3).permutation(len(crystal))
    found, other = (outputs(model, [c]) for c in (crystal, moved(crystal, order=order)))
    for key in ("charge", "vector"):
        # Against how much atoms differ: little in an untrained network with attention.
        difference = (other[key] - found[key][order]).abs().amax(0)
        assert (difference < 0.05 * found[key].std(0)).all()
    for key in ("gap", "tensor", "energy"):
        close(other[key], found[key])


def test_extensive_outputs_grow_with_the_cell(name):
    """Without complete pairs, which a larger cell splits, and lattice vectors, which Matformer reads."""
    model = with_heads(name, as_given=True)
    crystals = [CRYSTALS["quartz"], CRYSTALS["Al2O3"]]
    found = outputs(model, crystals)
    if "pairs" in model.needs or name == "matformer":
        batch = batch_of(model, crystals)
        with torch.no_grad():
            atoms = model.heads["energy"].layers(model.embed(batch).atoms).squeeze(-1)
        total = torch.zeros(2).index_add_(0, batch.batch, atoms)
        close(found["energy"], total)
        return
    twice = outputs(model, [repeated(c, np.diag([2, 1, 1])) for c in crystals])
    torch.testing.assert_close(twice["energy"], 2 * found["energy"], rtol=1e-4, atol=1e-4)
    for key in ("gap", "tensor"):
        close(twice[key], found[key])


def test_isolated_atom_and_one_atom_cell_on_their_own(name):
    model = build(name)
    for c in (ISOLATED, ONE_ATOM):
        prediction = predict(model, [c])
        assert prediction.shape == (1,)
        assert prediction.isfinite().all()


def test_training_on_a_batch_of_one(name):
    """One atom alone has no variance: norms use their running statistics, and training goes on."""
    model = build(name).train()
    for c in (ISOLATED, ONE_ATOM, CRYSTALS["NaCl"]):
        model.zero_grad()
        output = value(model, batch_of(model, [c]))
        output.sum().backward()
        assert output.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(value.isfinite().all() for value in model.state_dict().values())


# A second each: options of a network, whose names have a dash, are traced among the slow tests.
@pytest.mark.parametrize(
    "name", [pytest.param(key, marks=pytest.mark.slow if "-" in key else ()) for key in MODELS], indirect=True
)
def test_compiles_into_one_graph(name):
    """Traced whole, without code generation, so that it needs no compiler."""
    model = build(name)
    batch = batch_of(model, ALL)
    expected = predict(model, ALL)
    model.fold = False
    torch._dynamo.reset()  # all models share `Network.forward`, whose number of compilations is limited
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        close(value(compiled, batch), expected)


def test_half_precision_by_autocast(name):
    model = build(name)
    batch = batch_of(model, ALL)
    expected = value(model, batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        output = value(model, batch)
    # An untrained network can tell crystals apart by less than the rounding of half precision.
    rounding = torch.finfo(torch.bfloat16).eps * expected.abs().max()
    assert (output - expected).abs().max() < 0.2 * expected.std() + rounding
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = value(model, batch).float().square().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_save_and_reload(name, tmp_path):
    model = build(name)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = MODELS[name]()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(predict(model, ALL), predict(other.eval(), ALL))


def test_save_and_reload_several_heads(name, tmp_path):
    model, other = with_heads(name), with_heads(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    torch.testing.assert_close(outputs(other, ALL), outputs(model, ALL), rtol=0, atol=0)


def test_five_steps_overfit_one_batch(name):
    torch.manual_seed(3)
    model = MODELS[name]().train()
    batch = batch_of(model, ALL)
    target = torch.linspace(-1, 1, len(ALL))
    # Its sums over neighbours have no norm, so it needs smaller steps.
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3 if name == "potnet_ff" else 1e-2)
    losses = []
    for _ in range(6):
        loss = (value(model, batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
