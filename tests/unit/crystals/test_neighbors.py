import numpy as np
import pytest
from crystal_examples import brute_force_edges, in_other_cell, named

from potnet.crystals import Crystal, line_graph, local_edges, local_vectors, standardize
from potnet.crystals.neighbors import RADIUS_TOLERANCE


def edges_and_vectors(crystal, *arguments, **options):
    index, shift = local_edges(crystal, *arguments, **options)
    assert shift.dtype == np.int64
    return index, local_vectors(crystal, index, shift)


def as_set(index, vector):
    return sorted((int(i), int(j), *np.round(v, 5) + 0.0) for j, i, v in zip(*index, vector, strict=True))


def expected_set(edges):
    return sorted((i, j, *np.round(v, 5) + 0.0) for i, j, _, v in edges)


def random_crystal(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    cell = np.diag(rng.uniform(2.5, 7, 3)) @ (np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    if seed % 2:
        cell = cell[[1, 0, 2]]  # left-handed
    if seed % 3 == 0:
        cell = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ cell  # skewed
    fractional = rng.uniform(-2, 3, (n, 3))
    return Crystal.from_fractional(cell, fractional, rng.integers(1, 90, n), f"random {seed}")


def sane(crystal):
    return not brute_force_edges(crystal, 0.3)


RANDOM = [c for c in map(random_crystal, range(24)) if sane(c)]


@pytest.mark.parametrize("cutoff", [2.0, 4.5])
def test_radius_against_brute_force(cutoff):
    for crystal in RANDOM:
        index, vector = edges_and_vectors(crystal, cutoff=cutoff)
        assert index.dtype == np.int64
        assert vector.dtype == np.float64
        expected = expected_set(brute_force_edges(crystal, cutoff + RADIUS_TOLERANCE))
        assert as_set(index, vector) == expected, crystal.id


def nearest_in_whole_shells(crystal, k, tolerance, radius):
    kept = []
    edges = brute_force_edges(crystal, radius)
    for atom in range(len(crystal)):
        mine = sorted((e for e in edges if e[0] == atom), key=lambda e: e[2])
        count = min(k, len(mine))
        while 0 < count < len(mine) and mine[count][2] - mine[count - 1][2] <= tolerance:
            count += 1
        kept += mine[:count]
    return kept


@pytest.mark.parametrize("k", [1, 9])
def test_nearest_against_brute_force(k):
    for crystal in RANDOM[::2]:
        index, vector = edges_and_vectors(crystal, cutoff=None, k=k)
        reach = np.linalg.norm(vector, axis=1).max() + 0.5
        expected = nearest_in_whole_shells(crystal, k, 1e-3, reach)
        assert np.bincount([e[0] for e in expected]).min() >= k
        assert as_set(index, vector) == expected_set(expected), crystal.id


def test_nearest_within_a_radius_against_brute_force():
    for crystal in RANDOM[1::2]:
        index, vector = edges_and_vectors(crystal, cutoff=3.0, k=5)
        expected = nearest_in_whole_shells(crystal, 5, 1e-3, 3.0 + RADIUS_TOLERANCE)
        assert as_set(index, vector) == expected_set(expected), crystal.id


def test_edges_point_from_target_to_source():
    crystal = Crystal(np.diag([3.0, 20, 20]), [[0, 0, 0], [1.0, 0, 0]], [1, 8])
    index, vector = edges_and_vectors(crystal, cutoff=1.5)
    assert index.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(vector, [[1, 0, 0], [-1, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("options", [{"cutoff": 4.5}, {"cutoff": None, "k": 9, "symmetric": True}])
def test_shifts_are_those_of_the_crystal_as_given(options):
    """Skewed and left-handed cells, atoms far outside: shifts of another description would be no shorter."""
    crystal = random_crystal(3)
    moved = np.array([[4, -3, 2], [0, 0, 0], [-7, 5, 1], [60, -70, 100]])
    positions = crystal.positions + np.resize(moved, (len(crystal), 3)) @ crystal.cell
    far = Crystal(crystal.cell, positions, crystal.z)
    (index, shift), (index_far, shift_far) = (local_edges(c, **options) for c in (crystal, far))
    by_edge = {(*pair, *s) for pair, s in zip(index.T.tolist(), shift.tolist(), strict=True)}
    offset = np.resize(moved, (len(crystal), 3))
    back = shift_far + offset[index_far[0]] - offset[index_far[1]]
    assert by_edge == {(*pair, *s) for pair, s in zip(index_far.T.tolist(), back.tolist(), strict=True)}
    np.testing.assert_allclose(
        np.linalg.norm(local_vectors(far, index_far, shift_far), axis=1),
        np.linalg.norm(local_vectors(crystal, index, shift), axis=1),
        atol=1e-9,
    )


def test_order_is_by_target_then_distance_then_source():
    index, vector = edges_and_vectors(named("Al2O3"), cutoff=4.0)
    distance = np.linalg.norm(vector, axis=1).round(6)
    keys = list(zip(index[1], distance, index[0], strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_strontium_titanate_keeps_whole_shells(noise):
    """20 neighbours each of Sr (12 O, 8 Ti) and Ti (6 O, 8 Sr, 6 Ti), also in coordinates from a file."""
    crystal = named("SrTiO3")
    moved = crystal.positions + np.random.default_rng(0).uniform(-noise, noise, crystal.positions.shape)
    crystal = Crystal(crystal.cell, moved, crystal.z)
    index, _ = local_edges(crystal, cutoff=None, k=16)
    counts = np.bincount(index[1], minlength=len(crystal))
    assert counts[crystal.z != 8].tolist() == [20, 20]
    around_strontium = crystal.z[index[0][index[1] == 0]]
    assert sorted(around_strontium) == [8] * 12 + [22] * 8


@pytest.mark.parametrize("name", ["NaCl", "diamond", "SrTiO3", "Al2O3", "quartz"])
def test_number_of_neighbours_does_not_depend_on_the_cell(name):
    crystal = named(name)
    for options in ({"cutoff": 4.0}, {"cutoff": None, "k": 16}, {"cutoff": 6.0, "k": 12}):
        per_element = []
        for one in (crystal, standardize(crystal), in_other_cell(crystal, [[1, 1, 0], [0, 2, 1], [1, 0, 2]])):
            index, _ = local_edges(one, **options)
            counts = np.bincount(index[1], minlength=len(one))
            per_element.append({z: sorted(set(counts[one.z == z].tolist())) for z in set(one.z.tolist())})
        assert per_element[0] == per_element[1] == per_element[2]


def test_neighbours_exactly_at_the_radius_are_all_kept():
    """a = 4 Å: the six nearest images are at the radius, as the rounding of any rotation may deny."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        index, _ = local_edges(Crystal((4.0 * rotation).round(6), [[0.1, 0.2, 0.3]], [84]), cutoff=4.0)
        assert index.shape == (2, 6)


def test_own_images_and_no_duplicates_in_small_cells():
    crystal = Crystal(np.eye(3) * 1.5, [[0, 0, 0]], [1])
    index, vector = edges_and_vectors(crystal, cutoff=4.0)
    assert not index.any()
    assert len(np.unique(vector.round(6), axis=0)) == len(vector) == len(brute_force_edges(crystal, 4.0))
    assert np.linalg.norm(vector, axis=1).min() == pytest.approx(1.5)


@pytest.mark.parametrize("options", [{"cutoff": 4.0}, {"cutoff": 4.0, "k": 3}])
def test_an_isolated_atom_has_no_edge(options):
    index, vector = edges_and_vectors(Crystal(np.eye(3) * 30, [[0, 0, 0]], [2]), **options)
    assert index.shape == (2, 0)
    assert vector.shape == (0, 3)
    assert index.dtype == np.int64
    assert vector.dtype == np.float64


def test_some_atoms_isolated():
    crystal = Crystal(np.eye(3) * 30, [[0, 0, 0], [1, 0, 0], [15, 15, 15]], [1, 1, 2])
    index, _ = local_edges(crystal, cutoff=4.0, k=12)
    assert index.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("edge", [30.0, 1000.0])
def test_nearest_images_of_a_lonely_atom(edge):
    index, vector = edges_and_vectors(Crystal(np.eye(3) * edge, [[0, 0, 0]], [2]), cutoff=None, k=4)
    assert index.shape == (2, 6)
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), edge)


def test_nearest_in_a_slab_with_vacuum():
    slab = in_other_cell(
        Crystal(np.diag([2.8, 2.8, 60.0]), [[0, 0, 0], [1.4, 1.4, 2.0]], [47, 47]), np.diag([4, 4, 1])
    )
    index, vector = edges_and_vectors(slab, cutoff=None, k=8)
    assert np.bincount(index[1]).tolist() == [8] * len(slab)
    assert np.linalg.norm(vector, axis=1).max() < 3


def test_whole_shells_follow_the_tolerance():
    crystal = Crystal(np.diag([3.0, 3.01, 3.02]), [[0, 0, 0]], [84])
    assert local_edges(crystal, None, k=2, shell_tolerance=0.0)[0].shape[1] in (1, 2)
    assert local_edges(crystal, None, k=2, shell_tolerance=1e-3)[0].shape[1] == 2
    assert local_edges(crystal, None, k=2, shell_tolerance=0.05)[0].shape[1] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": None}, "a cutoff .* a number k, or both"),
        ({"cutoff": 0.0}, "cutoff must be a positive"),
        ({"cutoff": float("inf")}, "cutoff must be a positive"),
        ({"cutoff": None, "k": 0}, "k must be at least 1"),
        ({"shell_tolerance": -1.0}, "shell_tolerance"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        local_edges(named("NaCl"), **options)


@pytest.mark.parametrize(("name", "k"), [("quartz", 9), ("SrTiO3", 7)])
def test_symmetric_neighbours_are_the_nearest_and_their_reverses(name, k):
    crystal = standardize(named(name))
    given = edges_of(*edges_and_vectors(crystal, cutoff=None, k=k))
    both = edges_of(*edges_and_vectors(crystal, cutoff=None, k=k, symmetric=True))
    reverses = {(target, source, *(-v for v in vector)) for source, target, *vector in given}
    assert given != reverses
    assert both == given | reverses


def edges_of(index, vector):
    """Each edge as (source, target, x, y, z), to 1e-6 Å."""
    rounded = (vector.round(6) + 0.0).tolist()
    found = {(*pair, *v) for pair, v in zip(index.T.tolist(), rounded, strict=True)}
    assert len(found) == index.shape[1]
    return found


def test_line_graph_against_all_pairs_of_edges():
    index, _ = local_edges(named("quartz"), cutoff=2.0)
    pairs = line_graph(index, 9)
    source, target = index
    expected = [(a, b) for b in range(len(source)) for a in range(len(source)) if target[a] == source[b]]
    assert pairs.T.tolist() == [list(pair) for pair in expected]
    assert line_graph(np.empty((2, 0), dtype=np.int64), 3).shape == (2, 0)
