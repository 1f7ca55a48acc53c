"""Runs become rows: grouped by settings, averaged over seeds, compared crystal by crystal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from potnet.config import ConfigError
from potnet.runs.report import collect, sections
from potnet.runs.report.names import changes, name_rows, settings_of
from potnet.runs.report.planned import not_begun

WriteRun = Any


def test_collect_finds_runs_in_order_of_their_numbers(study: Path) -> None:
    runs = collect([study])
    assert [int(run.folder.name.partition("_")[0]) for run in runs] == list(range(7))
    assert [run.status for run in runs[5:]] == [
        "failed: data.limit=0: must be positive",
        "unfinished, 2 of 3 epochs",
    ]
    assert runs[0].epoch_seconds == 3.0
    assert runs[0].errors("test") == pytest.approx({"mp-0": 0.15, "mp-1": 0.25, "mp-2": 0.18, "mp-3": 0.22})
    assert collect([str(study.parent / "st*")]) == runs
    assert [run.folder for run in collect([runs[3].folder])] == [runs[3].folder]


def test_collect_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs=nowhere\*: there is no such folder"):
        collect(["nowhere*"])
    with pytest.raises(ConfigError, match=r"no run is in there"):
        collect([tmp_path])


def test_rows_average_over_seeds_and_are_named_by_what_differs(study: Path) -> None:
    (section,) = sections(collect([study]))
    assert (section.key, section.unit) == ("k_vrh", "log10(GPa)")
    assert [row.name for row in section.rows] == ["pairs_none", "complete", "radius_4"]
    assert section.reference.name == "complete"
    assert [(len(row.finished), len(row.runs)) for row in section.rows] == [(2, 2), (2, 3), (1, 2)]
    error = section.reference.error("test")
    assert error is not None
    assert (error.mean, error.deviation, error.n) == (
        pytest.approx(0.155),
        pytest.approx(0.01 / math.sqrt(2)),
        2,
    )
    assert section.rows[0].changes == {"model.pairs": ("complete", "none")}
    assert section.reference.parameters == 1234


def test_comparison_is_a_paired_t_test_over_crystals(study: Path) -> None:
    (section,) = sections(collect([study]))
    comparison = section.rows[0].comparison
    assert comparison is not None
    differences = [0.05, 0.05, 0.08, 0.02]
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    assert comparison.mean == pytest.approx(0.05)
    assert comparison.p == pytest.approx(expected.pvalue)
    assert (comparison.low, comparison.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert comparison.crystals == 4
    assert comparison.seeds is not None
    assert (comparison.seeds.mean, comparison.seeds.n) == (pytest.approx(0.05), 2)


def test_comparison_uses_the_seeds_that_both_rows_have(study: Path) -> None:
    (section,) = sections(collect([study]))
    same = section.rows[2].comparison  # radius_4: seed 0 alone, and the errors of `complete` with seed 0
    assert same is not None
    assert (same.mean, same.p) == (0.0, 1.0)
    assert section.reference.comparison is None


def test_reference_by_name_or_override(study: Path) -> None:
    runs = collect([study])
    for reference in ("pairs_none", "ablation=pairs_none"):
        (section,) = sections(runs, reference)
        assert section.reference.name == "pairs_none"
        assert section.rows[1].comparison is not None
        assert section.rows[1].comparison.mean == pytest.approx(-0.05)
    with pytest.raises(ConfigError, match=r"reference=pairs_non: .* did you mean pairs_none\?"):
        sections(runs, "pairs_non")


def test_properties_are_sections_of_their_own(study: Path, write_run: WriteRun) -> None:
    write_run(study, "complete", 0, (1.0, 2.0), target="e_form", transform="none")
    found = sections(collect([study]))
    assert [(section.key, section.unit) for section in found] == [("k_vrh", "log10(GPa)"), ("e_form", "GPa")]
    assert collect([study])[-1].errors("test") == pytest.approx({"mp-0": 1.0, "mp-1": 2.0})


def test_runs_without_overrides_are_named_by_their_settings(tmp_path: Path, write_run: WriteRun) -> None:
    for ablation in ("complete", "radius_4"):
        write_run(tmp_path, ablation, 0, (0.1, 0.2), overrides=False)
    (section,) = sections(collect([tmp_path]))
    assert [row.name for row in section.rows] == ["pair_cutoff=null", "pair_cutoff=4.0"]
    assert section.reference is section.rows[0]


def test_names_never_repeat() -> None:
    rows = [(["a=1"], {"x": 1}), (["a=1"], {"x": 2}), (["a=2", "b=3"], {"x": 1})]
    assert name_rows(rows, ["seed"]) == ["a=1, x=1", "a=1, x=2", "a=2, b=3"]
    assert name_rows([([], {"x": 1})], ["seed"]) == ["all runs"]


def test_settings_leave_out_seeds_and_places() -> None:
    first = {"seed": 1, "data": {"seed": 1, "fold": 0, "cache_dir": "a"}, "model": {"width": 2}, "logger": {}}
    second = {**first, "seed": 2, "data": {"seed": 2, "fold": 1, "cache_dir": "b"}}
    assert settings_of(first, ["seed", "fold"]) == settings_of(second, ["seed", "fold"])
    assert changes(settings_of(first, ["seed"]), settings_of(second, ["seed"])) == {"data.fold": (0, 1)}


def test_jobs_that_were_never_begun(study: Path) -> None:
    sweeper = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    (study / "multirun.yaml").write_text(
        f"hydra:\n  sweeper: {{_target_: {sweeper}, params: {{seed: '0,1'}}}}\n"
        "  overrides: {task: ['ablation=glob(pairs_none)', trainer.max_epochs=3]}\n"
    )
    assert not_begun(collect([study])) == []
    text = (study / "multirun.yaml").read_text()
    (study / "multirun.yaml").write_text(text.replace("glob(pairs_none)", "glob(coulomb_*)"))
    assert sorted(not_begun(collect([study]))) == [
        f"seed={seed}, ablation={name}" for seed in (0, 1) for name in ("coulomb_london", "coulomb_pauli")
    ]
    (study / "multirun.yaml").write_text(text.replace("BasicSweeper", "OptunaSweeper"))
    assert not_begun(collect([study])) == []
