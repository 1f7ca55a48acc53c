"""`TorchSimModel`: a force field for TorchSim, which relaxes and moves many crystals at once (an extra)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from potnet.crystals import Crystal, CrystalError
from potnet.forcefield.errors import ForceFieldError
from potnet.forcefield.member import Models, check_allowed, checked_crystal, members

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ForceFieldError(
        'TorchSimModel needs TorchSim, which is not installed: pip install "potnet[torchsim]"'
    ) from error


class TorchSimModel(ModelInterface):
    """Energies, forces and stress of all systems of a state in one batch.

    Neighbour lists are found anew at every step, on the CPU. Of several checkpoints the results are means.

    Args:
        models: A checkpoint, an export, the folder of a run, a `Predictor`, or several of these.
        device: "cpu", "cuda", ..., or "auto".
        dtype: "float32", or "float64" for tight relaxations; positions of the state have it, too.
        unknown_elements, isolated: "raise" or "allow", see `Calculator`.

    Raises:
        ForceFieldError: See `Calculator`. (Importing this module without TorchSim, too.)

    Example:
        >>> import torch_sim as ts  # doctest: +SKIP
        >>> ts.optimize(atoms_list, TorchSimModel("runs/mlearn_si"), optimizer=ts.fire)  # doctest: +SKIP
    """

    def __init__(
        self,
        models: Models,
        device: str = "auto",
        dtype: Literal["float32", "float64"] = "float64",
        unknown_elements: Literal["raise", "allow"] = "raise",
        isolated: Literal["raise", "allow"] = "raise",
    ) -> None:
        super().__init__()
        self.members = members(models, device, dtype)
        check_allowed(unknown_elements=unknown_elements, isolated=isolated)
        self._allowed = isolated == "allow", unknown_elements == "allow"
        self._device = torch.device(self.members[0].predictor.device)
        self._dtype = torch.float64 if dtype == "float64" else torch.float32
        self._compute_forces = True
        self._compute_stress = not any(member.direct_forces for member in self.members)

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """`energy` (B,) eV, `forces` (N, 3) eV/Å, and `stress` (B, 3, 3) eV/Å³, positive under tension.

        Args:
            state: A `SimState` of B systems with N atoms in all, or its entries as a mapping.

        Raises:
            ForceFieldError: See `Calculator.calculate`; the number of the system is named.
        """
        entries = state if isinstance(state, dict) else vars(state)
        positions = entries["positions"].detach().double().cpu()
        system = entries.get("system_idx")
        system = torch.zeros(len(positions), dtype=torch.int64) if system is None else system.cpu()
        # TorchSim has lattice vectors as columns.
        cells = entries["cell"].detach().double().cpu().reshape(-1, 3, 3).mT
        z = entries["atomic_numbers"].cpu()
        if not bool(torch.as_tensor(entries.get("pbc", True)).all()):
            raise ForceFieldError(
                "the state is not periodic in all directions: put what is not into a cell with "
                "vacuum, and set pbc=True"
            )
        crystals = []
        for number, cell in enumerate(cells):
            chosen = system == number
            try:
                crystal = Crystal(
                    cell.numpy(), positions[chosen].numpy(), z[chosen].numpy(), f"system {number}"
                )
                crystals.append(checked_crystal(crystal))
            except (CrystalError, ForceFieldError) as error:
                raise ForceFieldError(f"system {number}: {error}") from error
        found = [member.results(crystals, *self._allowed) for member in self.members]
        keys = ["energy", "forces", *(["stress"] if self._compute_stress else [])]
        results = {
            key: torch.stack([one[key] for one in found]).mean(0).to(self._device, self._dtype)
            for key in keys
        }
        if "stress" in results:
            results["stress"] = results["stress"][:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].view(-1, 3, 3)
        return results
