"""Every experiment goes through one training step, on a tiny file in the layout of its data set."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from potnet.config import compose, config_dir, plain
from potnet.crystals.elements import symbol
from potnet.data import Target
from potnet.train import train

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "published"
EXPERIMENTS = sorted(file.stem for file in (config_dir() / "experiment").glob("*.yaml"))
# Cells of tables: the experiment, and further choices that make it the published one.
TABLES = [
    *((name, ()) for name in EXPERIMENTS if name.startswith(("jarvis_", "mp_", "matbench_"))),
    ("mp_bulk_modulus", ("data=mp_elastic",)),
    ("mp_shear_modulus", ("data=mp_elastic",)),
]
FILES = {
    "JarvisSource": {"jarvis_dft_3d": "jdft_3d-8-18-2021.json.zip", "mp_megnet": "megnet.json.zip"},
    "ElasticSource": {"mp_elastic": ""},
}


def tiny(*overrides: str) -> DictConfig:
    """An experiment on few crystals, with a small network, for one step."""
    config = compose("train", overrides)
    config.finetune["from"] = None  # there is no run to begin with
    config.trainer.accelerator = "cpu"
    config.trainer.fast_dev_run = True
    config.data.batch_size = 8
    for key, value in {"width": 16, "layers": 1, "alignn_layers": 1, "gcn_layers": 1}.items():
        if key in config.model:
            config.model[key] = value
    return config


def unpinned(description: Any) -> Any:
    """A description of a data set that takes any number of crystals, and files with any checksum."""
    if isinstance(description, list):
        return [unpinned(entry) for entry in description]
    if not isinstance(description, dict):
        return description
    return {
        key: None if key in ("crystals", "checksum", "bytes") else unpinned(value)
        for key, value in description.items()
    }


def matbench_file(source: dict[str, Any], folder: Path) -> Path:
    """The fixture of matbench_phonons as that of another task, with labels that fit."""
    (task,) = (entry for entry in source["tasks"].values() if entry["target"] == source["target"])
    content = json.loads(gzip.decompress((PUBLISHED / "matbench_phonons.json.gz").read_bytes()))
    content["columns"] = ["structure", task["column"]]
    content["data"] = [[row[0], 1 + number / 50] for number, row in enumerate(content["data"])]
    file = folder / "matbench.json.gz"
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    return file


def mptrj_file(folder: Path) -> Path:
    """Frames of chlorides in the layout of MPtrj."""
    content = {}
    for number, z in enumerate(range(19, 39)):
        frame = {
            "structure": {
                "lattice": {"matrix": [[3.5, 0, 0], [0, 3.5, 0], [0, 0, 3.5]]},
                "sites": [
                    {"species": [{"element": name, "occu": 1}], "abc": [place, place, place]}
                    for name, place in ((symbol(z), 0.0), ("Cl", 0.49))
                ],
            },
            "corrected_total_energy": -7.0 - number / 10,
            "bandgap": 1.0,
            "force": [[0.1, 0.1, 0.1], [-0.1, -0.1, -0.1]],
            "stress": [[9.0, 1.0, 1.0], [1.0, 9.0, 1.0], [1.0, 1.0, 9.0]] if number % 2 else None,
        }
        content[f"mp-{number}"] = {f"mp-{number}-0-0": frame}
    file = folder / "MPtrj_2022.9_full.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def table_file(embedded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crystals with the properties that the small tables of studies have, and a split."""
    crystals = embedded.crystals[:30]
    file = tmp_path_factory.mktemp("table") / "table.jsonl"
    rows = [
        {
            "id": crystal.id,
            "lattice": crystal.cell.tolist(),
            "z": crystal.z.tolist(),
            "frac": crystal.fractional.tolist(),
            "split": ("train", "train", "train", "val", "test")[number % 5],
            "e_form": -number / 10,
            "gap_pbe": number / 10,
            "coulomb_energy": -number / 3,
            "lj_energy_per_atom": -number / 4,
            "g_vrh": crystal.properties["g_vrh"],
        }
        for number, crystal in enumerate(crystals)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def on_fixture(config: DictConfig, folder: Path, table: Path) -> dict[str, Any]:
    """The plain config, with a tiny file in the place of what would be downloaded."""
    if OmegaConf.is_missing(config.data, "path"):  # a table of the user's
        config.data.path = str(files("potnet.data") / "embedded" / "mlearn_si.jsonl.gz")
    source = plain(config.data.source)
    kind = source["_target_"].rpartition(".")[2]
    if kind == "EmbeddedSource" or (kind == "TableSource" and Path(source["path"]).is_file()):
        config.data.limit = 30
    elif kind == "TableSource":
        config.data.source.path = str(table)
    elif kind == "MatbenchSource":
        config.data.path = str(matbench_file(source, folder))
    elif kind == "MPtrjSource":
        config.data.path = str(mptrj_file(folder))
    else:
        config.data.path = str(PUBLISHED / FILES[kind][source["name"]])
    settings: dict[str, Any] = plain(config)
    settings["data"]["source"] = unpinned(settings["data"]["source"])
    return settings


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_goes_through_a_step(
    experiment: str, tmp_path: Path, cache_dir: Path, table_file: Path
) -> None:
    config = tiny(f"experiment={experiment}", f"data.cache_dir={cache_dir}")
    train(on_fixture(config, tmp_path, table_file), tmp_path)
    assert (tmp_path / "split.json").is_file()


@pytest.mark.parametrize("experiment", ["mp_bulk_modulus", "mp_shear_modulus"])
def test_the_moduli_run_on_the_published_set_with_its_split(
    experiment: str, tmp_path: Path, cache_dir: Path, table_file: Path
) -> None:
    config = tiny(f"experiment={experiment}", "data=mp_elastic", f"data.cache_dir={cache_dir}")
    assert config.data.split._target_ == "potnet.data.PublishedSplit"
    assert config.published.data == "mp_elastic"
    train(on_fixture(config, tmp_path, table_file), tmp_path)
    split = json.loads((tmp_path / "split.json").read_text())
    assert len(split["train"]) == 24


@pytest.mark.parametrize(("experiment", "choices"), TABLES)
def test_published_values_are_in_the_unit_of_the_metrics(experiment: str, choices: tuple[str, ...]) -> None:
    config = compose("train", [f"experiment={experiment}", *choices])
    published = plain(config.published)
    assert set(published) == {"mae", "unit", "source", "data"}
    assert published["mae"] > 0
    assert published["unit"] == Target(**plain(config.target)).learned_unit
    assert (config_dir() / "data" / f"{published['data']}.yaml").is_file()


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name.startswith("jarvis_")])
def test_the_published_schedule_wins_over_that_of_an_experiment(experiment: str) -> None:
    config = compose("train", [f"experiment={experiment}", "trainer=full", "model=potnet_published"])
    assert config.trainer.max_epochs == 500
    assert config.optimizer.weight_decay == 0
    assert config.callbacks.ema is None


def test_the_table_is_complete() -> None:
    names = {
        *(
            "jarvis_formation_energy",
            "jarvis_total_energy",
            "jarvis_gap_opt",
            "jarvis_gap_mbj",
            "jarvis_ehull",
        ),
        *("mp_formation_energy", "mp_band_gap", "mp_bulk_modulus", "mp_shear_modulus"),
    }
    tasks = compose("train", ["data=matbench"]).data.source.tasks
    assert names | {f"matbench_{task}" for task in tasks} <= set(EXPERIMENTS)
