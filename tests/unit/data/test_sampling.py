from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from crystal_tables import cubic, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potnet.data import CrystalDataModule, DataError, Featurizer, TableSource, Target
from potnet.data.features.packing import Packing, limited_batches
from potnet.data.features.sampling import CrystalBatchSampler, EpochSampler
from potnet.lattice import Coulomb


def limited(pairs: np.ndarray, max_pairs: int, batch_size: int = 64, seed: int = 0) -> CrystalBatchSampler:
    packing = limited_batches(batch_size, True, np.zeros_like(pairs), pairs, None, max_pairs)
    assert packing is not None
    return CrystalBatchSampler(EpochSampler(len(pairs), True, seed), batch_size, True, packing=packing)


def realistic(total: int) -> np.ndarray:
    """Pairs of crystals of 1 to 624 atoms, most of them small."""
    rng = np.random.default_rng(0)
    atoms = np.minimum(624, np.ceil(rng.lognormal(2.8, 1.0, total)).astype(np.int64))
    atoms[total // 2] = 624
    return atoms * atoms


def test_limits_hold_in_every_epoch_and_their_number_is_the_same():
    pairs = realistic(2000)
    sampler = limited(pairs, 400_000)
    # 32 batches of 64 would hold all; the largest crystals cost one more at most.
    assert len(sampler) <= 33
    seen = set()
    for epoch in range(5):
        sampler.sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(crystal for batch in batches for crystal in batch) == list(range(2000))
        assert all(len(batch) <= 64 for batch in batches)
        assert all(pairs[batch].sum() <= 400_000 for batch in batches)
        assert list(sampler) == batches
        seen.add(tuple(map(tuple, batches)))
    assert len(seen) == 5
    other = limited(pairs, 400_000, seed=1)
    other.sampler.set_epoch(4)
    assert list(other) != batches


def test_a_large_crystal_does_not_make_all_batches_small():
    pairs = np.array([600**2] + [100] * 640)
    sampler = limited(pairs, 300_000)
    sizes = sorted(len(batch) for batch in sampler)
    assert sizes == [1] + [64] * 10
    assert [0] in list(sampler)
    # It needs no batch of its own where it fits in with others.
    assert sorted(len(batch) for batch in limited(pairs, 366_000)) == [58] * 8 + [59] * 3


def test_limits_that_nothing_can_pass_change_nothing():
    pairs, edges = np.full(20, 100), np.full(20, 30)
    assert limited_batches(8, True, edges, pairs, 240, 800) is None
    assert limited_batches(8, True, edges, pairs, None, None) is None
    assert limited_batches(8, True, edges, pairs, 239, None).count == 3
    assert limited_batches(8, True, edges, pairs, 30, None).count == 20
    assert limited_batches(8, True, edges[:0], pairs[:0], 1, 1) is None


def test_in_order_without_shuffling():
    pairs = np.array([10, 20, 30, 200, 40, 50])
    packing = limited_batches(3, False, np.zeros_like(pairs), pairs, None, 60)
    assert list(packing.batches()) == [[0, 1, 2], [3], [4], [5]]
    assert packing.count == 4


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 1000)), min_size=1, max_size=80),
    st.integers(1, 70),
    st.integers(1, 1500),
    st.integers(1, 20),
    st.booleans(),
)
def test_every_crystal_once_within_every_limit(sizes, max_edges, max_pairs, batch_size, shuffle):
    table = np.array([(1, edges, pairs) for edges, pairs in sizes])
    limits = np.array([batch_size, max_edges, max_pairs])
    packing = Packing(table, limits, shuffle)
    batches = list(packing.batches(torch.Generator().manual_seed(0)))
    assert len(batches) == packing.count
    assert sorted(crystal for batch in batches for crystal in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or (table[batch].sum(0) <= limits).all()


def test_ranks_share_the_batches_of_one():
    pairs = realistic(500)
    whole = list(limited(pairs, 400_000))
    shares = []
    for rank in range(3):
        sampler = limited(pairs, 400_000)
        sampler.rank, sampler.world_size = rank, 3
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == len(whole)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(crystal for part in parts for crystal in part) == sorted(batch)


def test_continues_amid_an_epoch():
    sampler = limited(realistic(500), 400_000)
    whole = list(sampler)
    sampler.start = 3
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole


def test_data_module(tmp_path: Path):
    records = [cubic(f"c{i}", 4.0 + 0.1 * i, k_vrh=1.0, split="train") for i in range(6)]
    source = TableSource(write_table(tmp_path / "t.jsonl", records))

    def data(**limits: int | None) -> CrystalDataModule:
        featurizer = Featurizer(potentials=[Coulomb()])
        return CrystalDataModule(
            source, Target("k_vrh"), featurizer, needs=["pairs"], cache_dir=tmp_path / "cache", **limits
        )

    assert [batch.num_crystals for batch in data().train_dataloader()] == [6]
    loader = data(max_pairs=8).train_dataloader()
    assert len(loader) == 3
    assert [batch.num_crystals for batch in loader] == [2, 2, 2]
    assert [len(batch.pair_sums) for batch in data(max_pairs=12).dataloader("train")] == [12, 12]
    with pytest.raises(DataError, match=r"data\.max_pairs=0: give at least 1"):
        data(max_pairs=0)
