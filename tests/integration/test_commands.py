"""The commands as a user meets them: help, messages, exit status, signals."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from conftest import TINY
from omegaconf import OmegaConf

import potnet
from potnet.cli import COMMANDS
from potnet.config import compose, message_of
from potnet.config.help import help_text
from potnet.config.paths import groups
from potnet.files import check_writable
from potnet.runs.begin import alone_in, in_use

Run = Any  # conftest.Run
Potnet = Callable[..., Any]  # conftest.potnet
ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
MINE = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)[0]
MYNET = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)[0]
HEAVY = ("torch", "lightning", "torch_geometric", "torchmetrics", "wandb", "jarvis", "ase", "matplotlib")


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Modules that a command run with `-X importtime` imported."""
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "report", "screen", "serve"])
def test_help_teaches_and_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    done = command("-X", "importtime", "-m", "potnet.cli", name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"  potnet {name} " in done.stdout
    assert "Examples" in done.stdout
    assert not imported(done) & {*HEAVY}
    same = command("-m", f"potnet.{name}", "--help", cwd=tmp_path)
    assert same.stdout == done.stdout
    if name == "train":
        assert "hydra" not in imported(done)
        assert len(done.stdout.splitlines()) < 50


def test_the_long_help_has_every_group_and_the_keys_of_this_command(tmp_path: Path) -> None:
    done = command("-m", "potnet.cli", "train", "model=schnet", "--help", "all", cwd=tmp_path)
    assert done.returncode == 0
    for group in groups():
        assert f"\n    {group} " in done.stdout, group
    assert "potnet.models.SchNet" in done.stdout
    assert "accumulate_grad_batches: 1" in done.stdout


def test_the_short_help_states_the_defaults_as_they_are() -> None:
    config = compose("train")
    stated = re.findall(r"^  ([a-z_.]+) {2,}.*\((?:null: all|(.*))\)$", help_text("train"), re.MULTILINE)
    assert len(stated) >= 9
    for key, default in stated:
        value = OmegaConf.select(config, key)
        assert default == {"data.limit": "", "resume": "null"}.get(key, str(value)), key


def test_the_command_lists_its_subcommands_and_starts_light(tmp_path: Path) -> None:
    done = command("-X", "importtime", "-m", "potnet.cli", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert not imported(done) & {*HEAVY, "hydra", "omegaconf", "yaml"}
    for name, sub in COMMANDS.items():
        assert f"\n  {name} " in done.stdout
        assert importlib.util.find_spec(sub.module) is not None
    assert command("-m", "potnet.cli", cwd=tmp_path).returncode == 2
    done = command("-m", "potnet.cli", "--version", cwd=tmp_path)
    assert done.stdout == f"potnet {potnet.__version__}\n"
    done = command("-m", "potnet.cli", "tarin", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: unknown command tarin; did you mean train?\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("potnet tr", ["train"]),
        ("potnet train model=schn", ["schnet"]),
        ("potnet train seed=1 trainer.max_e", ["trainer.max_epochs="]),
        ("potnet train model=schnet model.n_f", []),
        ("potnet data pre", ["prepare"]),
        ("potnet predict chec", ["checkpoint="]),
        ("potnet predict checkpoint=my", ["my_run"]),
        ("potnet predict my", ["my_run"]),
    ],
)
def test_bash_completes(line: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    script = tmp_path / "complete.sh"
    script.write_text(
        f'potnet() {{ {shlex.quote(sys.executable)} -m potnet.cli "$@"; }}\n'
        'eval "$(potnet completion bash)"\n'
        "compopt() { :; }\n"
        f"COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; _potnet\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert done.stdout.split() == found


def test_help_may_be_cut_off(tmp_path: Path) -> None:
    help_text = subprocess.Popen(
        [sys.executable, "-m", "potnet.train", "--help"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert help_text.stdout is not None
    assert help_text.stderr is not None
    help_text.stdout.close()  # before anything is written
    assert help_text.stderr.read() == ""
    help_text.stderr.close()
    assert help_text.wait(300) == 1


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        (
            "train",
            "trainer.max_epoch=3",
            "error: unknown key trainer.max_epoch; did you mean trainer.max_epochs?",
        ),
        ("train", "model=potnte", "error: unknown option model=potnte; did you mean potnet"),
        ("train", "runs_dir=file/below", "not a directory"),
        ("train", "resume=nowhere", "error: resume=nowhere: there is no config.yaml here"),
        ("evaluate", "checkpoints=x", "error: unknown key checkpoints; did you mean checkpoint?"),
        ("evaluate", "checkpoint=nowhere", "error: nowhere: no such checkpoint or folder"),
        ("predict", "device=cpu", "error: missing key inputs"),
        ("evaluate", "checkpoint=[a,b]", "give one path"),
        ("train", "target=own", "error: missing key target.key"),
        ("train", "data.limit=-1", "data.limit"),
        ("train", "model=potnet,schnet", "add -m to run once for each"),
        ("evaluate", "checkpoint=2024", "error: 2024: no such checkpoint or folder"),
        ("evaluate", "checkpoint=runs/a(1)=b", "error: runs/a(1)=b: no such checkpoint or folder"),
    ],
)
def test_mistakes_end_in_one_message(
    name: str, override: str, message: str, tmp_path: Path, potnet: Potnet
) -> None:
    (tmp_path / "file").write_text("")
    done = potnet(name, override, cwd=tmp_path)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_mistake_in_a_process_of_its_own_ends_without_a_traceback(tmp_path: Path) -> None:
    done = command("-m", "potnet.cli", "train", "trainer.max_epoch=3", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: unknown key trainer.max_epoch; did you mean trainer.max_epochs?\n"


def test_predict_reports_bad_files_and_keeps_the_others(trained: Run, tmp_path: Path) -> None:
    bulk("NaCl", "rocksalt", a=5.64).write(tmp_path / "nacl.cif")
    (tmp_path / "bad.cif").write_text("hello")
    words = (f"checkpoint={trained.folder}", "inputs=*.cif", "output=predictions.csv")
    done = command("-m", "potnet.predict", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "1 could not be predicted" in done.stderr
    assert "bad.cif" in done.stderr.splitlines()[-1]
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "id,k_vrh,flags"
    assert lines[1].startswith("nacl,")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.cif", "nacl.cif", "predictions.csv"]


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "out.csv", tmp_path):
        with pytest.raises(OSError, match=str(tmp_path)) as error:
            check_writable(output)
        assert "choose another folder" in str(message_of(error.value))
    check_writable(tmp_path / "new" / "out.csv")
    assert list((tmp_path / "new").iterdir()) == []


def start_training(cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    """Returns once the first epoch is done."""
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "potnet.train",
                "model=potnet_published",
                "model.width=16",
                "model.layers=1",
            ),
            *("data.limit=60", "data.batch_size=16", "trainer.max_epochs=3000", "trainer.accelerator=cpu"),
            *("hydra.run.dir=run", *overrides),
        ],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell lets what it starts in the background, this test included, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    return process


def test_the_folder_of_an_earlier_run_is_not_overwritten(
    trained: Run, tmp_path: Path, potnet: Potnet
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = potnet("train", "data.limit=60", "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path)
    assert done.status == 1
    assert done.err.startswith("error: run holds an earlier run (metrics.json, checkpoints/last.ckpt")
    assert "resume=run continues it" in done.err
    assert "give another hydra.run.dir, or remove that folder" in done.err
    assert len(done.err.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_second_process_does_not_train_in_a_folder(trained: Run, tmp_path: Path, potnet: Potnet) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    with alone_in(run):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        for word in ("resume=run", "hydra.run.dir=run", "resume=run/checkpoints/last.ckpt"):
            done = potnet("train", word, cwd=tmp_path)
            assert done.status == 1
            assert done.err.startswith("error: another process is training in run: wait for it")
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_folder_in_which_a_trial_kept_nothing_is_used_again(
    tmp_path: Path, cache_dir: Path, potnet: Potnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: Path(path).touch())
    words = [
        *TINY,
        "data.limit=60",
        "trainer.max_epochs=1",
        f"data.cache_dir={cache_dir}",
        "hydra.run.dir=run",
    ]
    assert potnet("train", *words, "trainer.fast_dev_run=true", cwd=tmp_path).status == 0
    assert (tmp_path / "run" / "config.yaml").is_file()
    done = potnet("train", *words, cwd=tmp_path)
    assert done.status == 0, done.err
    assert potnet("train", *words, cwd=tmp_path).status == 1
    assert potnet("train", "resume=run", cwd=tmp_path).status == 0


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        # In this process: tests/integration/test_preemption.py.
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_signals_end_a_run_in_an_orderly_way(
    number: signal.Signals, status: int, tmp_path: Path, cache_dir: Path
) -> None:
    process = start_training(tmp_path, f"data.cache_dir={cache_dir}")
    try:
        assert in_use(tmp_path / "run")
        process.send_signal(number)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert not in_use(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    if number == signal.SIGINT:
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["interrupted"] is True
        assert "test" in output
    else:
        assert "SIGTERM" in output


def test_a_folder_of_configurations_and_a_class_of_the_users(
    tmp_path: Path, cache_dir: Path, potnet: Potnet
) -> None:
    """As docs/experiments.md says it; the class is found in the working folder."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(MINE)
    (tmp_path / "mynet.py").write_text(MYNET)
    done = potnet(
        *("train", "--config-dir", "conf", "experiment=mine", "model._target_=mynet.Net"),
        *("model.size=16", f"data.cache_dir={cache_dir}"),
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    assert "model._target_=mynet.Net: without width, edge_width" in done.out
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 1
    # Not without being named again.
    done = potnet("train", f"resume={folder}", cwd=tmp_path)
    assert done.status == 1
    assert "allow=[mynet.Net]" in done.err


@pytest.mark.slow
def test_the_wheel_carries_its_configuration(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("potnet-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=300)
    assert (site / "potnet" / "conf" / "train.yaml").is_file()
    assert list((site / "potnet" / "data" / "embedded").glob("*.jsonl.gz"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = command(
        "-c", "import potnet.config as c; print(c.config_dir())", cwd=elsewhere, PYTHONPATH=str(site)
    )
    assert where.stdout.strip() == str(site / "potnet" / "conf")
    # A CIF to an answer, with nothing but the installed package: any request would meet a closed port.
    bulk("NaCl", "rocksalt", a=5.64).write(elsewhere / "salt.cif")
    closed = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = command("-m", "potnet.cli", "predict", "salt.cif", cwd=elsewhere, PYTHONPATH=str(site), **closed)
    assert done.returncode == 0, done.stderr
    assert {"k_vrh", "salt"} <= set(done.stdout.split())
    assert os.listdir(elsewhere) == ["salt.cif"]
    done = command(
        *("-m", "potnet.train", "model.width=16", "data.limit=60", "trainer.max_epochs=1"),
        *("trainer.accelerator=cpu", "experiment=mp_shear_modulus", f"data.cache_dir={tmp_path / 'cache'}"),
        cwd=elsewhere,
        PYTHONPATH=str(site),
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (elsewhere / "runs" / "mp_shear_modulus").iterdir()
    assert (folder / "metrics.json").is_file()
