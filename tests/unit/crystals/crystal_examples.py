"""Named crystals, other descriptions of them, and slow but obvious references."""

import itertools

import numpy as np

from potnet.crystals import Crystal, from_ase


def named(name: str) -> Crystal:
    """A conventional cell of a well-known crystal."""
    from ase.spacegroup import crystal

    atoms = {
        "NaCl": lambda: crystal(
            ["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3
        ),
        "diamond": lambda: crystal(["C"], [(0, 0, 0)], spacegroup=227, cellpar=[3.567] * 3 + [90] * 3),
        "SrTiO3": lambda: crystal(
            ["Sr", "Ti", "O"],
            [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)],
            spacegroup=221,
            cellpar=[3.905] * 3 + [90] * 3,
        ),
        "Al2O3": lambda: crystal(
            ["Al", "O"],
            [(0, 0, 0.35216), (0.30624, 0, 0.25)],
            spacegroup=167,
            cellpar=[4.7589, 4.7589, 12.991, 90, 90, 120],
        ),
        "quartz": lambda: crystal(
            ["Si", "O"],
            [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
            spacegroup=154,
            cellpar=[4.9137, 4.9137, 5.4047, 90, 90, 120],
        ),
    }[name]()
    atoms.info.clear()
    return from_ase(atoms, id=name)


NAMES = ("NaCl", "diamond", "SrTiO3", "Al2O3", "quartz")
PRIMITIVE_ATOMS = {"NaCl": 2, "diamond": 2, "SrTiO3": 5, "Al2O3": 10, "quartz": 9}


def in_other_cell(crystal: Crystal, multiple: object) -> Crystal:
    """The same crystal in the cell `multiple @ cell`, `multiple` a whole (3, 3) matrix."""
    matrix = np.array(multiple)
    count = round(abs(np.linalg.det(matrix)))
    # Lattice points inside the new cell: whole combinations whose new coordinates are in [0, 1).
    reach = range(-int(abs(matrix).sum()), int(abs(matrix).sum()) + 1)
    points = np.array(list(itertools.product(reach, repeat=3)))
    new = points @ np.linalg.inv(matrix) + 1e-9
    points = points[((new >= 0) & (new < 1)).all(1)]
    assert len(points) == count
    positions = (crystal.positions[None] + (points @ crystal.cell)[:, None]).reshape(-1, 3)
    return Crystal(
        matrix @ crystal.cell, positions, np.tile(crystal.z, count), crystal.id, crystal.properties
    )


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def variants(crystal: Crystal) -> dict[str, Crystal]:
    """Other descriptions of one crystal."""
    rng = np.random.default_rng(7)
    n = len(crystal)
    rotation = random_rotation(rng)
    order = rng.permutation(n)
    left = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    other = {
        "2x1x3": in_other_cell(crystal, np.diag([2, 1, 3])),
        "skewed": in_other_cell(crystal, [[1, 0, 0], [3, 1, 0], [-2, 5, 1]]),
        "skewed supercell": in_other_cell(crystal, [[1, 1, 0], [0, 2, 1], [1, 0, 2]]),
        "left-handed": in_other_cell(crystal, left),
        "rotated": Crystal(crystal.cell @ rotation, crystal.positions @ rotation, crystal.z, crystal.id),
        "shifted": Crystal(
            crystal.cell, crystal.positions + np.array([0.37, -1.9, 25.0]), crystal.z, crystal.id
        ),
        "unwrapped": Crystal(
            crystal.cell,
            crystal.positions + rng.integers(-3, 4, (n, 3)) @ crystal.cell,
            crystal.z,
            crystal.id,
        ),
        "permuted": Crystal(crystal.cell, crystal.positions[order], crystal.z[order], crystal.id),
        # Coordinates as files have them.
        "rounded": Crystal.from_fractional(
            crystal.cell.round(6), crystal.fractional.round(6), crystal.z, crystal.id
        ),
    }
    everything = in_other_cell(other["left-handed"], [[2, 0, 1], [0, 1, 0], [-1, 4, 1]])
    order = rng.permutation(len(everything))
    other["all at once"] = Crystal(
        everything.cell @ rotation,
        everything.positions[order] @ rotation + 3.3,
        everything.z[order],
        crystal.id,
    )
    return other


def brute_force_edges(crystal: Crystal, cutoff: float) -> list[tuple[int, int, float, np.ndarray]]:
    """(target, source, distance, vector) of all neighbours, over all images that could be near enough."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.cell), axis=0)
    spread = np.ptp(crystal.fractional, axis=0)
    reach = [range(-int(m), int(m) + 1) for m in np.ceil(cutoff / heights + spread)]
    edges = []
    for image in itertools.product(*reach):
        vectors = crystal.positions[None] + np.array(image) @ crystal.cell - crystal.positions[:, None]
        distances = np.linalg.norm(vectors, axis=2)
        for i, j in zip(*np.nonzero(distances <= cutoff), strict=True):
            if any(image) or i != j:
                edges.append((int(i), int(j), float(distances[i, j]), vectors[i, j]))
    return edges


def environments(crystal: Crystal, radius: float = 6.0) -> np.ndarray:
    """What doesn't depend on the description: per atom, its element and the sorted distances to each element.

    Atoms are sorted, so that two descriptions of one crystal give the same numbers.
    """
    kinds = np.unique(crystal.z).tolist()
    rows: list[list[list[float]]] = [[[] for _ in kinds] for _ in range(len(crystal))]
    for target, source, distance, _ in brute_force_edges(crystal, radius):
        rows[target][kinds.index(crystal.z[source])].append(distance)
    # Only the nearest ones: the radius itself may cut through a shell.
    nearest = 12
    table = np.array(
        [
            [z, *(d for one in row for d in (sorted(one) + [99.0] * nearest)[:nearest])]
            for z, row in zip(crystal.z, rows, strict=True)
        ]
    )
    return table[np.lexsort(table.round(3).T[::-1])]
