"""conf/: every group composes and its parts can be built; mistakes are named."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from potnet.config import (
    ConfigError,
    build,
    check_arguments,
    compose,
    config_dir,
    locate,
    message_of,
    plain,
)
from potnet.config.messages import explain
from potnet.config.resolvers import folder_name, remove_unused_run_dir, run_dir, secret
from potnet.data.features.featurizer import NEEDS
from potnet.data.targets import Targets
from potnet.models import PotNet
from potnet.training.module import PropertyModule
from potnet.training.setup import build_callbacks, build_trainer, data_settings

GROUPS = {
    group.name: sorted(file.stem for file in group.glob("[!_]*.yaml"))
    for group in config_dir().iterdir()
    if group.is_dir() and group.name != "hydra"
}
ELSEWHERE = ("ablation", "experiment", "potentials", "target")
"""Groups whose options have a test of their own, below or in tests/integration/test_experiments.py."""
CHOICES = [(group, name) for group in sorted(GROUPS) if group not in ELSEWHERE for name in GROUPS[group]]


def composed(*overrides: str) -> dict:
    config = compose("train", overrides)
    # What only Hydra knows, and only in a run.
    config.logger = {}
    for part in (config.data, config.data.source, config.data.split):
        if OmegaConf.is_missing(part, "path"):
            part.path = "my.jsonl"
    if OmegaConf.is_missing(config.target, "key"):
        config.target.key = "own"
    return plain(config)


@pytest.mark.parametrize(("group", "option"), CHOICES, ids=lambda value: value)
def test_every_option_composes_and_its_parts_are_built(group: str, option: str, tmp_path: Path) -> None:
    # What is fitted to energies has no other target.
    fitted = option in ("pair_splines", "cluster_expansion", "cluster_expansion_large", "mbtr_forces")
    more = ["target=energy", "features.neighbors.cutoff=7"] if fitted else []
    config = composed(f"{group}={option}", *more)
    if "width" in config["model"]:
        config["model"]["width"] = 16
    # Derivatives of an energy are learned by smooth networks, which the default is not.
    derived = Targets.from_config(config["target"]).derived
    if not derived and is_new(config["model"], config["target"], config["objective"], config["optimizer"]):
        module = PropertyModule(config["model"], config["target"], config["objective"], config["optimizer"])
        assert module.model.needs <= set(NEEDS)
    if is_new(config["data"], config["features"]):
        build(config["data"]["source"], "data.source")
        build({"_target_": "potnet.data.Featurizer", **config["features"]}, "features")
        settings = {
            name: value for name, value in data_settings(config["data"]).items() if name != "_target_"
        }
        check_arguments(
            locate(config["data"]), settings | {"targets": 0, "featurizer": 0, "needs": ()}, "data"
        )
    # Of what the trainer is given, only the devices may be missing here.
    trainer = config["trainer"] | {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    if is_new(config["callbacks"], trainer):
        callbacks = build_callbacks(config["callbacks"], True, "val/loss")
        assert build_trainer(trainer, callbacks, [], tmp_path).max_epochs >= 1


_built: set[str] = set()


def is_new(*parts: dict) -> bool:
    """Whether no option before had the same parts: then they need not be built again."""
    text = json.dumps(parts, sort_keys=True)
    new = text not in _built
    _built.add(text)
    return new


@pytest.mark.parametrize("target", [name for name in GROUPS["target"] if name != "columns"])
def test_targets_build(target: str) -> None:
    targets = Targets.from_config(composed(f"target={target}")["target"])
    several = ("moduli", "energy_forces", "energy_forces_stress", "energy_gap_moduli")
    assert (len(targets) > 1) == (target in several)
    assert target in several or list(targets) == [target]
    # Moduli are learned as logarithms where the literature does so.
    for key, built in targets.items():
        assert (built.learned_unit == "log10(GPa)") == (key in ("k_vrh", "g_vrh"))


def test_targets_of_columns_are_given_one_by_one() -> None:
    config = composed("target=columns", "+target.gap.unit=eV", "+target.bulk={unit: GPa, transform: log10}")
    targets = Targets.from_config(config["target"])
    assert [(key, target.learned_unit) for key, target in targets.items()] == [
        ("gap", "eV"),
        ("bulk", "log10(GPa)"),
    ]
    with pytest.raises(ConfigError, match="there is no target"):
        composed("target=columns")


@pytest.mark.parametrize("potentials", GROUPS["potentials"])
def test_potentials_build_and_are_counted(potentials: str) -> None:
    config = composed("model=potnet_published", f"potentials={potentials}")
    featurizer = build({"_target_": "potnet.data.Featurizer", **config["features"]}, "features")
    assert featurizer.channels == config["model"]["pair_channels"] == len(config["coefficients"])


def test_split_potentials_are_counted() -> None:
    config = composed("features.pair_split=4.0")
    featurizer = build({"_target_": "potnet.data.Featurizer", **config["features"]}, "features")
    assert featurizer.channels == config["model"]["pair_channels"] == 6


def test_the_full_trainer_is_the_published_schedule() -> None:
    config = composed("model=potnet_published", "trainer=full")
    assert config["trainer"]["max_epochs"] == 500
    assert config["data"]["batch_size"] == 64
    assert config["seed"] == 123
    assert config["objective"]["loss"] == "mse"
    assert config["objective"]["scale_target"] is False
    assert config["optimizer"]["learning_rate"] == 1e-3
    assert config["optimizer"]["weight_decay"] == 0
    assert config["optimizer"]["warmup_steps"] == 2000
    assert config["callbacks"] == {"early_stopping": None, "ema": None}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=potnet", "unknown key modle; did you mean model?"),
        ("trainer.max_epoch=3", "unknown key trainer.max_epoch; did you mean trainer.max_epochs?"),
        ("features.neighbours.cutoff=3", "features.neighbors"),
        ("features.neighbors.cutof=3", "did you mean features.neighbors.cutoff?"),
        ("optimizer.lr=1", "unknown key optimizer.lr"),
        (
            "optimizer.rates.x=1",
            "optimizer.rates is null; give what it should hold as a whole, 'optimizer.rates={x: VALUE}'",
        ),
        (
            "features.neighbors={cutof: 4}",
            "unknown key features.neighbors.cutof; did you mean features.neighbors.cutoff?",
        ),
        ("experiment=mp_bulk", "did you mean mp_bulk_modulus?"),
        ("model=potnet_publishd", "did you mean potnet_published?"),
        ("ablation=pears_none", "did you mean pairs_none?"),
        ("trainer.limit_val_batches=2", "add it with a plus, +trainer.limit_val_batches=VALUE"),
        ("max_epochs=3", "unknown key max_epochs; did you mean trainer.max_epochs?"),
        ("cutoff=3", "did you mean features.neighbors.cutoff?"),
        ("nonsense", "cannot read 'nonsense'"),
        ("lr=3", "unknown key lr; did you mean optimizer.learning_rate?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("dataset=embedded", "did you mean data?"),
        ("data.path=my.csv", "unknown key data.path; did you mean data.source.path?"),
        ("split.fold=1", "the settings of split=OPTION are in data.split; did you mean data.split.fold?"),
        ("ablation.x=1", "ablation is a group, of which one option is chosen"),
        ("log_every_n_steps=3", "unknown key log_every_n_steps"),
        ("hydra/launcher=joblb", "unknown option hydra/launcher=joblb; did you mean joblib?"),
        ("hydra/sweeper=optun", "did you mean optuna?"),
        ("search=rate_width", "did you mean rate_width_decay?"),
    ],
)
def test_wrong_keys_groups_and_options_name_the_nearest(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose("train", [override])
    assert message in str(error.value)


def test_a_file_of_conf_without_its_package_line_is_named() -> None:
    """Not the key, which is right; composing again for its name would fail the same way for ever."""
    text = "In 'experiment/mine': Could not override 'data@experiment.data'.\nDid you mean to override data?"
    found = explain(ConfigCompositionException(text), "train", ["experiment=mine"])
    assert found == "experiment/mine.yaml overrides data: let it begin with the line # @package _global_"
    assert "unknown key dtaa; did you mean data?" in explain(
        ConfigCompositionException("Could not override 'dtaa'"), "train", ["experiment=mine"]
    )


def test_a_number_in_the_place_of_an_option_is_explained() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    given = pytest.raises(ValueError, match="Config group override")
    with initialize_config_dir(str(config_dir()), version_base="1.3"), given as error:
        hydra_compose("train", ["model=3"])
    assert message_of(error.value) == str(error.value)


@pytest.mark.parametrize("ablation", sorted(set(GROUPS["ablation"]) - {"fields_none"}))
def test_ablations_fit_the_published_network(ablation: str) -> None:
    """The default network is trained with each in tests/integration/test_training.py."""
    config = composed(f"ablation={ablation}", "model=potnet_published", "model.width=16")
    network = build(config["model"], "model", nested=False)
    featurizer = build({"_target_": "potnet.data.Featurizer", **config["features"]}, "features")
    if "pairs" in network.needs:
        assert featurizer.channels == config["model"]["pair_channels"] == len(config["coefficients"])
    assert ablation.startswith("pairs_none") == ("pairs" not in network.needs)


def test_fields_are_refused_for_the_published_network() -> None:
    with pytest.raises(ConfigError, match=r"unknown key model\.charges"):
        build(composed("ablation=fields_none", "model=potnet_published")["model"], "model", nested=False)


def test_the_attention_ablation_switches_the_model() -> None:
    assert compose("train", ["ablation=attention"]).model.pairs == "attention"


@pytest.mark.parametrize(
    ("model", "message"),
    [("potnet", "model.pairs=attention; valid are"), ("schnet", "unknown key model.pairs")],
)
def test_attention_is_refused_for_a_model_without_such_a_layer(model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(composed("ablation=attention", f"model={model}")["model"], "model", nested=False)


def test_the_distance_ablation_tells_distances_apart() -> None:
    network = build(composed("ablation=distances")["model"], "model", nested=False)
    basis = network.edge_embedding[0]
    distances = torch.tensor([1.0, 2.0, 3.0, 4.0])
    features = basis(distances)
    assert features.amax(1).min() > 0.5
    assert len(features.argmax(1).unique()) == len(distances)


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    resolver = "${run_dir:" + str(tmp_path) + ",name,null}"
    folders = {OmegaConf.create({"dir": resolver}).dir for _ in range(3)}
    assert len(folders) == 3
    assert {str(path) for path in (tmp_path / "name").iterdir()} == folders


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "3"),
        ("ablation=pairs_none,seed=1", "3_pairs_none_seed-1"),
        ("model.width=64,data.source.path=/tmp/x y(1).csv", "3_width-64_path-tmp-x-y-1-.csv"),
        ("callbacks.ema.decay=0.99,optimizer.betas=[0.9,0.99]", "3_decay-0.99_betas-0.9-0.99"),
        ("+trainer.limit_train_batches=2", "3_limit_train_batches-2"),
        ("optimizer.learning_rate=0.0006919719850161683", "3_learning_rate-0.000692"),
    ],
)
def test_folders_of_a_sweep_can_be_pasted_into_a_shell(overrides: str, name: str) -> None:
    found = folder_name(3, overrides)
    assert found == name
    assert shlex.quote(found) == found


def test_folders_of_a_sweep_have_names_that_fit() -> None:
    long = ",".join(f"model.key_{i}={i}" for i in range(50))
    names = {folder_name(0, f"{long},seed={seed}") for seed in (0, 1)}
    assert len(names) == 2  # so that further seeds find room in the folder of a sweep
    assert all(len(name) == 60 for name in names)


@pytest.mark.parametrize("made_by", ["run_dir", "hydra"])
def test_the_folder_of_a_run_that_did_not_begin_is_removed(made_by: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = Path(run_dir(str(runs), "name", None))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").touch()
    remove_unused_run_dir(None if made_by == "run_dir" else folder)
    assert not runs.exists()


def test_the_folder_of_a_run_that_has_begun_is_kept(tmp_path: Path) -> None:
    folder = Path(run_dir(str(tmp_path / "runs"), "name", None))
    (folder / "split.json").touch()
    remove_unused_run_dir()
    remove_unused_run_dir(folder)
    assert (folder / "split.json").exists()


def test_a_class_given_alone_drops_the_keys_of_the_one_before() -> None:
    config = compose("train", [f"model._target_={__name__}.Toy", "model.width=7"])
    assert plain(config.model) == {"_target_": f"{__name__}.Toy", "width": 7}
    assert build(config.model, "model").width == 7
    # What was given as well stays, to be named if it is wrong.
    config = compose("train", [f"model._target_={__name__}.Toy", "+model.depth=7"])
    with pytest.raises(ConfigError, match=r"unknown key model\.depth"):
        build(config.model, "model")


def test_a_class_that_passes_others_on_keeps_the_keys_of_the_class_it_derives_from() -> None:
    given = ["model.rate=0.5", "model.extra=3"]
    config = compose("train", [f"model._target_={__name__}.Derived", *given])
    assert config.model.width == 128  # of conf/model/potnet.yaml, which the class before has as well
    assert "layers" not in config.model
    found = build(config.model, "model")
    assert (found.width, found.rate, found.extra) == (128, 0.5, 3)
    config = compose("train", [f"model._target_={__name__}.Derived", "+model.rat=0.5"])
    with pytest.raises(ConfigError, match=r"unknown key model\.rat; did you mean model\.rate"):
        build(config.model, "model")


def test_a_network_with_one_thing_changed_is_otherwise_the_default() -> None:
    config = compose("train", [f"model._target_={__name__}.Changed"])
    network = build(config.model, "model")
    default = build(compose("train", []).model, "model")
    assert network.changed
    assert network.state_dict().keys() == default.state_dict().keys()


def test_an_added_class_takes_added_keys() -> None:
    end = "callbacks.end"
    config = compose("train", [f"+{end}._target_={__name__}.Toy", f"+{end}.width=7"])
    assert config.callbacks.end.width == 7


def test_the_name_of_a_property_follows_its_key() -> None:
    assert compose("train", ["target.key=e_form", "target.unit=eV/atom"]).target.name == "e_form"
    assert compose("train", ["target.key=e_form", "target.name=energy"]).target.name == "energy"
    assert compose("train", ["target=g_vrh"]).target.name == "shear modulus"
    own = compose("train", ["target=own", "target.key=gap", "target.unit=eV"])
    assert (own.target.name or own.target.key, own.target.transform, own.name) == ("gap", "none", "gap")


def test_a_missing_key_that_others_refer_to_is_named_itself() -> None:
    with pytest.raises(ConfigError, match=r"missing key target\.key: give it"):
        plain(compose("train", ["target=own"]))


def test_a_setting_without_effect_is_not_offered() -> None:
    assert "log_every_n_steps" not in compose("train").trainer


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="missing key checkpoint"):
        plain(compose("evaluate"))


class Toy:
    """Takes arguments of several kinds."""

    def __init__(self, width: int, mode: Literal["sum", "mean"] = "sum", rate: float | None = None) -> None:
        self.width = width


class Derived(Toy):
    """Takes an argument, and those of the class it derives from."""

    def __init__(self, extra: int = 1, **others: Any) -> None:
        super().__init__(**others)
        self.extra, self.rate = extra, others.get("rate")


class Changed(PotNet):
    """The default network with one thing changed."""

    def __init__(self, heads: Any = None, **others: Any) -> None:
        super().__init__(heads=heads, **others)
        self.changed = True


class Outer:
    """Takes another object."""

    def __init__(self, inner: Toy) -> None:
        self.inner = inner


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": 3}, r"unknown key toy\.widht; did you mean toy\.width\?"),
        ({}, r"missing key toy\.width"),
        ({"width": 3, "mode": "maen"}, r"toy\.mode=maen; did you mean mean\?"),
        ({"width": "wide"}, r"toy\.width='wide': expected a whole number"),
        ({"width": True}, "expected a whole number"),
        ({"width": 3, "rate": "fast"}, r"toy\.rate='fast': expected a number or null"),
    ],
)
def test_arguments_are_checked_by_their_annotations(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"_target_": f"{__name__}.Toy", **settings}, "toy")


def test_build_takes_what_fits_and_builds_inner_objects() -> None:
    toy = {"_target_": f"{__name__}.Toy", "width": 3, "rate": 1}
    assert build(toy).width == 3
    assert build(None) is None
    assert build({"_target_": f"{__name__}.Outer", "inner": toy}).inner.width == 3


@pytest.mark.parametrize("target", ["potnet.models.Nothing", "nowhere.Thing", None])
def test_an_unknown_class_is_an_error(target: str | None) -> None:
    with pytest.raises(ConfigError, match="model"):
        build({"_target_": target}, "model")


def test_keys_come_from_the_environment_or_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert secret("WANDB_API_KEY") is None
    Path(".env").write_text("# keys\nMP_API_KEY=\nWANDB_API_KEY='abc'\n")
    assert secret("WANDB_API_KEY") == "abc"
    assert secret("MP_API_KEY") is None
    monkeypatch.setenv("WANDB_API_KEY", "def")
    assert secret("WANDB_API_KEY") == "def"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inputs=Fe2(SO4)3.cif", """'inputs="Fe2(SO4)3.cif"'"""),
        ("inputs=Grün.cif", """'inputs="Grün.cif"'"""),
        ("inputs=runs/lr=0.1/a.cif", """'inputs="runs/lr=0.1/a.cif"'"""),
        ("inputs=[x].cif", """'inputs="[x].cif"'"""),
        ("inputs=Si#1.cif", """'inputs="Si#1.cif"'"""),
        ('inputs=a"(b.cif', """'inputs="a\\"(b.cif"'"""),
        ("(x", "write key=value"),
    ],
)
def test_a_path_that_has_to_be_quoted_twice(override: str, message: str):
    """The message says what to write in a shell, and that is then read as the path."""
    with pytest.raises(ConfigError, match="cannot read") as caught:
        compose("predict", [override])
    assert message in str(caught.value)
    if message.startswith("'"):
        (written,) = shlex.split(message)
        assert compose("predict", [written]).inputs == override.partition("=")[2]


def test_a_comma_in_a_path_is_explained():
    from potnet.config import explain

    error = ValueError(
        "Ambiguous value for argument 'inputs=a,b.cif'\n1. To use it as a list, use key=[value1,value2]\n"
    )
    assert explain(error, "predict") == (
        "'inputs=a,b.cif' may be a list or a name with a comma: write 'inputs=\"a,b.cif\"' for one name, "
        "inputs=[a,b.cif] for a list, or add -m to run once for each"
    )


def test_a_class_that_cannot_be_found_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own_net.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path, why in (
        ("mynet.Net", "No module named 'mynet'"),
        ("own_net.Net", "No module named 'no_such_module'"),
        ("potnet.models.PotNot", "has no attribute 'PotNot'"),
        ("Net", "names no module"),
    ):
        with pytest.raises(ConfigError, match=rf"model\._target_: cannot find {path} \(.*{why}"):
            locate({"_target_": path}, "model")
    assert not caplog.records


def test_the_nearest_key_is_one_of_the_chosen_option() -> None:
    with pytest.raises(ConfigError, match=r"unknown key model.degres; did you mean model.degrees\?"):
        compose("train", ["model=cluster_expansion", "model.degres=[4]"])
    # A choice that is wrong itself does not hide the key.
    with pytest.raises(ConfigError, match="unknown"):
        compose("train", ["model=cluster", "model.widht=4"])


def test_another_split_does_not_inherit_the_keys_of_the_data_set() -> None:
    """Silicon's data give their own recipe a share for validation, which a file does not take."""
    given = ["experiment=mlearn_si", "split=file", "data.split.path=mine.json"]
    assert compose("train", given[:1]).data.split.val == 0.1
    assert dict(compose("train", given).data.split) == {
        "_target_": "potnet.data.FileSplit", "path": "mine.json",
    }  # fmt: skip
    # What was given stays, so that a mistake is named.
    assert compose("train", [*given, "data.split.val=0.2"]).data.split.val == 0.2


@pytest.mark.parametrize("name", ["device", "prepare", "teachers", "transfer_labelling", "transfer"])
def test_lists_of_runs_compose(name: str) -> None:
    """What a list asks for exists: of lines that differ in nothing but numbers, the first."""
    path = Path(__file__).parents[2] / "benchmarks" / "queues" / f"{name}.txt"
    seen = {}
    for line in path.read_text().splitlines():
        minutes, folder, *words = shlex.split(line, comments=True) or ("", "")
        if not folder:
            continue
        assert float(minutes) > 0
        # A study gives its runs these words.
        words = [word.removeprefix("hydra.sweeper.params.") for word in words if "study=" not in word]
        seen.setdefault(re.sub(r"\d+", "", " ".join(words)), words)
    assert seen
    for words in seen.values():
        compose("train", words)
