"""Energies, forces and stress of charges in pair potentials summed over all periodic images.

    E_a = 1/2 sum over b of c_a c_b S(a, b),    E = sum over the atoms of a crystal of E_a,

S as `lattice_sums` defines it: the term of an atom with itself at zero distance is left out, its own images
are counted, and 1/r is neutralised by a uniform background with tin-foil boundary. Ewald's split with
structure factors and a list of neighbours costs n^1.5, particle-mesh sums n log n; no table of pairs of atoms
is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.eager import eager
from potnet.lattice.energy_bounds import EnergyBound
from potnet.lattice.energy_plan import EnergyPlan, make_energy_plan
from potnet.lattice.energy_terms import Work, bilinear
from potnet.lattice.inputs import LatticeError, check_tensors, checked, checked_potentials, tolerances
from potnet.lattice.potentials import Potential
from potnet.lattice.slab import free_axis, without_free_vector
from potnet.lattice.slab_energies import layer_energies, slab_cells
from potnet.lattice.slab_pairs import LongCells, refuse_unknown
from potnet.lattice.structure_factors import Field
from potnet.lattice.task import _weights, distinct_kernels

#: e² / (4 π eps0) in eV Å: Coulomb energies of charges in units of e, times this, are in eV (CODATA 2018).
COULOMB_EV_ANGSTROM = 14.399645

# Part of the accuracy that images of slabs may take.
_OF_LAYERS = 0.1

Method = Literal["auto", "ewald", "mesh"]
Bound = Literal["rigorous", "estimate"]


class LatticeEnergies(NamedTuple):
    """Energies of B crystals with N atoms in P columns, one for each potential and its charges.

    Without units: charges² times phi, forces that by Å, stress that by Å³.

    Attributes:
        crystal: (B, P) float64.
        atom: (N, P), their parts: half of each pair to each of its atoms.
        forces: (N, P, 3), -dE/dx, or None if not asked for.
        stress: (B, P, 3, 3), (1/V) dE/d(strain), tension positive, or None.
        bound: Bounds of the truncation errors, (B, P) each: rigorous for Ewald sums unless estimates were
            asked for. On a mesh those of energies and forces hold an estimate of the interpolation, and that
            of stress times volume (`virial`) leaves it out.
    """

    crystal: Tensor
    atom: Tensor
    forces: Tensor | None
    stress: Tensor | None
    bound: EnergyBound


@eager
def lattice_energies(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    charges: Tensor,
    potentials: Sequence[Potential],
    accuracy: float | Sequence[float] = 1e-6,
    *,
    forces: bool = False,
    stress: bool = False,
    method: Method = "auto",
    eta: float | Tensor | None = None,
    bound: Bound = "rigorous",
    periodic: tuple[bool, bool, bool] = (True, True, True),
) -> LatticeEnergies:
    """Energies of charges in potentials summed over all periodic images.

    Differentiable in `cell`, `positions` and `charges`, twice and more; with `forces` or `stress` these come
    from closed forms in the same pass and are differentiable as well, which is cheaper than two calls of
    autograd where forces are trained on.

    Args:
        cell: (B, 3, 3) rows are lattice vectors, Å; any shape and handedness.
        positions: (N, 3) Å; atoms need not lie inside the cell.
        batch: (N,) integers, sorted crystal index of each atom.
        charges: (N, P), one column for each potential: charges, square roots of dispersion coefficients, ...
        potentials: P potentials; the same one may stand several times.
        accuracy: Permitted truncation error of the energy of each atom and of each component of each force,
            in their units; one number or one for each potential.
        forces: Also return forces.
        stress: Also return stress.
        method: "ewald", "mesh" (smooth particle-mesh Ewald, whose error is partly estimated), or "auto": a
            mesh for crystals of 1 500 atoms and more, where it pays.
        eta: Splitting parameter in 1/Å², a number or (B,); chosen for speed by default. The result does not
            depend on it.
        bound: "rigorous", or "estimate": cutoffs from an estimate of the errors, which are then closer to
            the accuracy, at about half the cost.
        periodic: Which cell vectors are periods. With one False, crystals are slabs: that vector is not used,
            and positions along the normal are taken as they are. Powers must be 1/r, of charges that sum to
            zero, or steeper than 1/r³. `bound` includes the images, but for `virial`.

    Returns:
        Energies, and forces and stress if asked for.

    Raises:
        TypeError: If `potentials` is no list of potentials.
        LatticeError: If a cell is singular or not finite, positions or charges are not finite, two atoms are
            closer than 0.01 Å, or the charges of a slab in 1/r do not sum to zero; the message names the
            crystal.
        ValueError: If shapes don't fit, `batch` is not sorted integers, an accuracy or eta is not positive,
            or a potential, or `stress`, is not offered for slabs.
    """
    potentials = checked_potentials(potentials)
    check_tensors(cell=cell, positions=positions, batch=batch, charges=charges)
    with torch.autocast(cell.device.type, enabled=False):
        if (axis := free_axis(periodic)) is not None:
            cell = without_free_vector(cell, axis)
        inputs = _checked(cell, positions, batch, charges, potentials, method, bound)
        if inputs is None:
            return _nothing(cell, positions, len(potentials), forces, stress)
        cell, positions, batch, charges, num_atoms = inputs
        tolerance = tolerances(accuracy, len(potentials), cell)
        long: LongCells | None = None
        if axis is not None:
            if stress:
                raise ValueError("slabs: stress by autograd, in the two periods, without stress=True")
            kernels, coefficients, _ = distinct_kernels(potentials, cell.new_ones(len(cell)))
            refuse_unknown(potentials, kernels)
            weights = _weights(coefficients)
            long = slab_cells(cell, positions, batch, charges, axis, kernels, weights, _OF_LAYERS * tolerance)
            cell, tolerance = long.cell, (1 - _OF_LAYERS) * tolerance
        plan = make_energy_plan(
            cell,
            positions,
            batch,
            num_atoms,
            charges,
            potentials,
            tolerance,
            eta,
            method,
            skin=0.0,
            likely=bound == "estimate",
        )
        result = _summed(plan, cell, positions, charges, forces, stress)
        if long is None:
            return result
        atom, force = layer_energies(long, kernels, coefficients, batch, charges)
        scale = plan.charges_max * plan.charges_sum
        beyond, pull = 0.5 * scale * long.bound, scale * long.slope
        return result._replace(
            crystal=result.crystal + _of_crystals(atom, plan.work),
            atom=result.atom + atom,
            forces=None if result.forces is None else result.forces + force,
            bound=result.bound._replace(energy=result.bound.energy + beyond, force=result.bound.force + pull),
        )


class EnergySums:
    """`lattice_energies` for dynamics: lists of pairs are kept while atoms move little.

    Call it like `lattice_energies`. The list of pairs reaches `skin` beyond the cutoff and is rebuilt when
    an atom has moved by half of that, when the cell has changed as much, or when another batch is given;
    pairs beyond the cutoff are left out at every call, so results are those of `lattice_energies`.

    Args:
        potentials: P potentials.
        accuracy: As in `lattice_energies`.
        skin: Å.
        method: As in `lattice_energies`.
        eta: As in `lattice_energies`.
        bound: As in `lattice_energies`.

    Raises:
        ValueError: If the skin is not positive.
    """

    def __init__(
        self,
        potentials: Sequence[Potential],
        accuracy: float | Sequence[float] = 1e-6,
        *,
        skin: float = 0.5,
        method: Method = "auto",
        eta: float | Tensor | None = None,
        bound: Bound = "rigorous",
    ) -> None:
        if not skin > 0:
            raise ValueError(f"skin must be positive (Å), got {skin}: use lattice_energies without one")
        self.potentials = checked_potentials(potentials)
        self.accuracy = accuracy
        self.skin = skin
        self.method: Method = method
        self.eta = eta
        self.bound: Bound = bound
        self.plan: EnergyPlan | None = None
        #: How often lists were made, beside how often they were used.
        self.num_plans = self.num_calls = 0

    @eager
    def __call__(
        self,
        cell: Tensor,
        positions: Tensor,
        batch: Tensor,
        charges: Tensor,
        *,
        forces: bool = False,
        stress: bool = False,
    ) -> LatticeEnergies:
        """As `lattice_energies`."""
        check_tensors(cell=cell, positions=positions, batch=batch, charges=charges)
        with torch.autocast(cell.device.type, enabled=False):
            inputs = _checked(cell, positions, batch, charges, self.potentials, self.method, self.bound)
            if inputs is None:
                return _nothing(cell, positions, len(self.potentials), forces, stress)
            cell, positions, batch, charges, num_atoms = inputs
            self.num_calls += 1
            learnable = any(
                isinstance(value, Tensor) and value.requires_grad
                for potential in self.potentials
                for value in vars(potential).values()
            )  # cutoffs depend on them
            if learnable or self.plan is None or not self.plan.fits(cell, positions, batch, charges):
                tolerance = tolerances(self.accuracy, len(self.potentials), cell)
                self.plan = make_energy_plan(
                    cell,
                    positions,
                    batch,
                    num_atoms,
                    charges,
                    self.potentials,
                    tolerance,
                    self.eta,
                    self.method,
                    self.skin,
                    likely=self.bound == "estimate",
                )
                self.num_plans += 1
            return _summed(self.plan, cell, positions, charges, forces, stress)


def _checked(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    charges: Tensor,
    potentials: Sequence[Potential],
    method: str,
    bound: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """Inputs in float64 and int64, with the numbers of atoms; None if there is no crystal at all."""
    if method not in ("auto", "ewald", "mesh"):
        raise ValueError(f"method must be 'auto', 'ewald' or 'mesh', got {method!r}")
    if bound not in ("rigorous", "estimate"):
        raise ValueError(f"bound must be 'rigorous' or 'estimate', got {bound!r}")
    if charges.is_complex():
        raise ValueError(f"charges must be real, got {charges.dtype}: give their real part")
    if charges.shape != (len(positions), len(potentials)):
        raise ValueError(
            f"charges must be (N, P), one column for each potential, ({len(positions)}, {len(potentials)}), "
            f"got {tuple(charges.shape)}"
        )
    if not batch.is_floating_point() and batch.dtype != torch.bool:
        batch = batch.long()
    cell, positions, num_atoms = checked(cell, positions, batch)
    if len(cell) == 0:
        return None
    charges = charges.to(torch.float64)
    finite = charges.detach().isfinite().all(1)
    if not bool(finite.all()):
        site = int((~finite).nonzero()[0])
        number = int(batch[site])
        site -= int(num_atoms[:number].sum())
        raise LatticeError(f"crystal {number}: site {site} has a charge that is not finite", number)
    return cell, positions, batch, charges, num_atoms


def _nothing(
    cell: Tensor, positions: Tensor, num_potentials: int, forces: bool, stress: bool
) -> LatticeEnergies:
    none = cell.new_zeros(0, num_potentials, dtype=torch.float64)
    return LatticeEnergies(
        none,
        none,
        none[..., None].expand(0, num_potentials, 3) if forces else None,
        none[..., None, None].expand(0, num_potentials, 3, 3) if stress else None,
        EnergyBound(none, none, none),
    )


def _summed(
    plan: EnergyPlan, cell: Tensor, positions: Tensor, charges: Tensor, forces: bool, stress: bool
) -> LatticeEnergies:
    work = plan.work
    reduced, wrapped = plan.reduced(cell, positions)
    if parameters := _parameters(work, reduced):
        return _by_autograd(plan, reduced, wrapped, charges, parameters, forces, stress)
    if not (forces or stress):
        crystal, atom = _Energy.apply(work, reduced, wrapped, charges)
        return LatticeEnergies(crystal, atom, None, None, plan.bound)
    field = bilinear(work, reduced, wrapped, charges, derivatives=True)
    assert field.gradient is not None
    assert field.strain is not None
    atom = 0.5 * charges * field.potential
    volume = cells.volume(reduced)[:, None, None, None]
    return LatticeEnergies(
        _of_crystals(atom, work),
        atom,
        -0.5 * field.gradient if forces else None,
        0.5 * field.strain / volume if stress else None,
        plan.bound,
    )


def _of_crystals(atom: Tensor, work: Work) -> Tensor:
    return atom.new_zeros(len(work.num_atoms), *atom.shape[1:]).index_add(0, work.batch, atom)


def _parameters(work: Work, cell: Tensor) -> list[Tensor]:
    """Tensors among the parameters of kernels, which may depend on the cell or carry a gradient."""
    kernels, coefficients, _ = distinct_kernels(work.potentials, cells.volume(cell.detach()))
    found = [value for kernel in kernels for value in vars(kernel).values() if isinstance(value, Tensor)]
    return [*found, coefficients] if coefficients.requires_grad or coefficients.ndim == 3 else found


def _by_autograd(
    plan: EnergyPlan,
    cell: Tensor,
    positions: Tensor,
    charges: Tensor,
    parameters: list[Tensor],
    forces: bool,
    stress: bool,
) -> LatticeEnergies:
    """Derivatives with respect to a strain and positions by autograd, for any kernel."""
    work = plan.work
    inputs = [cell, positions, charges, *parameters]
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    with torch.set_grad_enabled(wanted or forces or stress):
        strain = cell.new_zeros(cell.shape, requires_grad=stress)
        moved = positions if positions.requires_grad or not forces else positions.detach().requires_grad_()
        strained = cell + cell @ strain
        x = moved + torch.einsum("nd,ndc->nc", moved, strain.index_select(0, work.batch))
        atom = 0.5 * charges * bilinear(work, strained, x, charges).potential
        crystal = _of_crystals(atom, work)
        force_columns, stress_columns = [], []
        variables = [moved] * forces + [strain] * stress
        for column in crystal.sum(0) if variables else ():
            got = list(torch.autograd.grad(column, variables, create_graph=wanted, retain_graph=True))
            if forces:
                force_columns.append(-got.pop(0))
            if stress:
                stress_columns.append(0.5 * (got[0] + got[0].transpose(1, 2)))
        volume = cells.volume(cell)[:, None, None, None]
        result = LatticeEnergies(
            crystal,
            atom,
            torch.stack(force_columns, 1) if forces else None,
            torch.stack(stress_columns, 1) / volume if stress else None,
            plan.bound,
        )
    if wanted:
        return result
    return LatticeEnergies(
        crystal.detach(),
        atom.detach(),
        None if result.forces is None else result.forces.detach(),
        None if result.stress is None else result.stress.detach(),
        plan.bound,
    )


class _Energy(torch.autograd.Function):
    """Energies (B, P) and (N, P) of reduced cells and wrapped positions.

    The forward pass keeps the derivatives that will be asked for, in closed form: a backward pass is then a
    few products. Where the backward pass is itself differentiated, it is written in differentiable
    operations.
    """

    @staticmethod
    def forward(ctx: Any, work: Work, cell: Tensor, positions: Tensor, charges: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.work = work
        derivatives = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        field = bilinear(work, cell, positions, charges, derivatives=derivatives)
        atom = 0.5 * charges * field.potential
        ctx.save_for_backward(cell, positions, charges)
        ctx.field = field
        return _of_crystals(atom, work), atom

    @staticmethod
    def backward(ctx: Any, from_crystal: Tensor | None, from_atom: Tensor | None) -> Any:
        cell, positions, charges = ctx.saved_tensors
        work = ctx.work
        if from_crystal is None and from_atom is None:
            return None, None, None, None
        derivatives = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        field: Field = ctx.field
        if from_atom is None:  # one factor for each crystal
            assert from_crystal is not None
            if torch.is_grad_enabled():
                field = bilinear(work, cell, positions, charges, derivatives=derivatives)
            weight = from_crystal.index_select(0, work.batch)
            of_charges = weight * field.potential
            of_positions, of_crystals = 0.5 * weight, 0.5 * from_crystal
        else:
            weight = from_atom
            if from_crystal is not None:
                weight = weight + from_crystal.index_select(0, work.batch)
            left = weight * charges
            field = bilinear(work, cell, positions, charges, left, derivatives=derivatives)
            from_left, from_right = field.potential.chunk(2, 1)
            of_charges = 0.5 * (from_left + weight * from_right)
            of_positions, of_crystals = weight.new_tensor(0.5), weight.new_tensor(0.5)
        if not derivatives:
            return None, None, None, of_charges
        assert field.gradient is not None
        assert field.strain is not None
        gradient = (field.gradient * of_positions[..., None]).sum(1)
        strain = (field.strain * of_crystals[..., None, None]).sum(1)
        of_cell = None
        if ctx.needs_input_grad[1]:
            # E(x (1 + e), L (1 + e)): dE/de = x^T dE/dx + L^T dE/dL.
            moment = torch.einsum("nc,nd->ncd", positions, gradient)
            of_cell = torch.linalg.solve(cell.transpose(1, 2), strain - _of_crystals(moment, work))
        return None, of_cell, gradient, of_charges
