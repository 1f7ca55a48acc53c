"""`PropertyCalculator`: properties of crystals for ASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ase.calculators.calculator import Calculator, all_changes, all_properties

from potnet.config import ConfigError
from potnet.inference.predictions import FLAGS
from potnet.inference.predictor import Predictor
from potnet.inference.several import OF_ONE

if TYPE_CHECKING:
    from ase import Atoms


class PropertyCalculator(Calculator):
    """Values of trained models under the names of their targets, with spread, interval and flags.

    `results` has each target ("k_vrh"), where the model has them "k_vrh_std", "k_vrh_lower" and
    "k_vrh_upper", and "flags" (text, "" where nothing speaks against the prediction). Energies and forces are
    those of `potnet.forcefield.Calculator`.

    Args:
        model: A `Predictor`, or what `potnet.load` takes: "k_vrh", ["k_vrh", "gap"], a run's folder.
        device: See `potnet.load`.
        options: Of `Predictor.predict`: `level`, `box`, `plausibility`, `max_memory_gib`.

    Raises:
        ConfigError: A model of energies or forces.
        RegistryError, CheckpointError: See `potnet.load`.

    Example:
        >>> atoms.calc = PropertyCalculator("k_vrh")  # doctest: +SKIP
        >>> atoms.calc.get_property("k_vrh", atoms)  # doctest: +SKIP
    """

    def __init__(self, model: Any, device: str = "auto", **options: Any) -> None:
        super().__init__()
        if not isinstance(model, Predictor):
            from potnet.api import load

            model = load(model, device)
        mechanical = [key for key in model.targets if key in all_properties]
        if mechanical:
            raise ConfigError(
                f"a model of {', '.join(mechanical)} is a force field: use potnet.forcefield.Calculator"
            )
        self.model: Predictor = model
        self.options = options
        columns = model.empty_table().columns
        key = model.targets.first.key
        self._names = {name: f"{key}_{name}" if name in OF_ONE else name for name in columns}
        # Not of the class: it depends on the model.
        self.implemented_properties = [*self._names.values(), *model.empty_table().atoms, FLAGS]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = (),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Predict all targets at once, as ASE asks.

        Raises:
            CrystalError: Atoms that cannot be predicted.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        found = self.model.predict(self.atoms, **self.options)
        row = found[0]
        self.results = {self._names[name]: row[name] for name in found.columns}
        self.results |= {key: arrays[0] for key, arrays in found.atoms.items()}
        self.results[FLAGS] = row[FLAGS]
