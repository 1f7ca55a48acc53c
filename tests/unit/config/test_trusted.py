"""A file builds what is on the list, and nothing else is even imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from potnet.config import ConfigError, compose, config_dir, plain
from potnet.config.trusted import check_trusted, read_saved_config, targets_in, trusted_target


@pytest.fixture
def mynet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's; importing it leaves a file."""
    (tmp_path / "mynet.py").write_text(
        "from pathlib import Path\nimport torch\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Net(torch.nn.Module):\n    pass\n"
        "def run(**arguments):\n    raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mynet", None)


@pytest.mark.parametrize("group", ["model", "data", "split", "target", "trainer", "logger", "callbacks"])
def test_all_of_conf_is_trusted(group: str) -> None:
    files = sorted((config_dir() / group).glob("[a-z]*.yaml"))
    for file in files:
        paths = [value for _, value in targets_in(yaml.safe_load(file.read_text()))]
        known = [path for path in paths if not path.startswith("${")]
        for path in known:
            assert any(_is_trusted(path, kind) for kind in ("model", "data", "source", "split", "descriptor",
                       "potential", "callback", "logger", "trainer")), (file, path)  # fmt: skip


def _is_trusted(path: str, kind: str) -> bool:
    try:
        trusted_target(path, kind)
    except ConfigError:
        return False
    return True


def test_a_config_of_the_command_is_trusted() -> None:
    for overrides in ([], ["data=jarvis_dft_3d", "logger=wandb"], ["model=mbtr_krr", "features=mbtr"]):
        check_trusted(plain(compose("train", overrides)))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("model", "os.system"),
        ("model", "mynet.Net"),
        ("model", "torch.nn.Linear"),
        ("model", "potnet.models.potnet.torch.load"),
        ("model", "potnet.models.potnet.nn.Linear"),
        ("model", "potnet.data.EmbeddedSource"),
        ("source", "potnet.data.ShuffledSplit"),
        ("source", "subprocess.Popen"),
        ("split", "potnet.data.sources.folder.Path"),
        ("callback", "potnet.training.loggers.common.os.system"),
        ("trainer", "potnet.train.train"),
        ("potential", "potnet.lattice.lattice_sums"),
        ("model", "potnet.models.__init__"),
        ("model", 3),
        ("model", None),
    ],
)
def test_the_rest_is_refused_and_not_imported(kind: str, path: Any, mynet: Path) -> None:
    with pytest.raises(ConfigError, match=r"a file may build nothing else|nothing of this name"):
        trusted_target(path, kind)
    assert not (mynet / "imported").exists()


def test_a_user_may_name_their_own(mynet: Path) -> None:
    found = trusted_target("mynet.Net", "model", allow=["mynet.Net"])
    assert found.__name__ == "Net"
    assert (mynet / "imported").exists()
    with pytest.raises(ConfigError, match="not a network"):
        trusted_target("mynet.run", "model", allow=["mynet.run"])
    with pytest.raises(ConfigError, match="nothing of this name"):
        trusted_target("mynet.Nett", "model", allow=["mynet.Nett"])


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"_target_": "potnet.data.CrystalDataModule", "source": {"_target_": "os.system"}}},
        {"data": {"source": {"path": {"_target_": "os.system", "command": "touch owned"}}}},
        {"model": {"_target_": "potnet.models.PotNet", "width": {"_target_": "mynet.run"}}},
        {"trainer": {"_target_": "lightning.Trainer", "callbacks": [{"_target_": "mynet.run"}]}},
        {"features": {"potentials": [{"_target_": "mynet.run"}]}},
        {"callbacks": {"mine": {"_target_": "mynet.run"}}},
        {"target": {"key": "k", "name": {"_target_": "mynet.run"}}},
    ],
)
def test_a_tampered_config_runs_nothing(change: dict[str, Any], mynet: Path) -> None:
    with pytest.raises(ConfigError, match=r"allow=\[(os.system|mynet.run)\]"):
        check_trusted(change)
    file = mynet / "config.yaml"
    file.write_text(yaml.safe_dump(change))
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_saved_config(file)
    assert not (mynet / "imported").exists()
    assert not Path("owned").exists()


def test_a_saved_config_is_plain_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    file = tmp_path / "config.yaml"
    file.write_text("name: ${oc.env:SECRET}\n")
    with pytest.raises(ConfigError, match=r"name=.* is an interpolation") as found:
        read_saved_config(file)
    assert "s3cret" not in str(found.value)
    file.write_text("!!python/object/apply:os.system ['touch owned']")
    with pytest.raises(ConfigError, match="not a config of a run"):
        read_saved_config(file)
    assert not Path("owned").exists()
    file.write_text("name: a\nseed: 1\n")
    assert read_saved_config(file) == {"name": "a", "seed": 1}
