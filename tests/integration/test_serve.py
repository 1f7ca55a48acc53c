"""The local page in a real browser, and what it shows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_models import GAP, K, registry

import potnet
from potnet.config import ConfigError
from potnet.inference.ensemble import Calibration, Ensemble
from potnet.inference.flags import Reference, Surroundings
from potnet.inference.intervals import Intervals
from potnet.serve import serve
from potnet.serving.answer import answer, picture, read_upload


def test_what_is_said_of_a_crystal(tmp_path: Path) -> None:
    file = tmp_path / "Cu.cif"
    bulk("Cu").write(file)
    (crystal,), problems = read_upload("Cu.cif", file.read_bytes())
    assert not problems
    models = potnet.load(["k_vrh", "gap"], device="cpu", registry=registry(tmp_path, k_vrh=K, gap=GAP))
    found = answer(models, crystal, 0.8)
    expected = models.predict(file, level=0.8)[0]
    assert [(row["value"], row["unit"]) for row in found.values] == [
        (pytest.approx(expected["k_vrh"]), "GPa"),
        (pytest.approx(expected["band_gap"]), "eV"),
    ]
    assert found.values[1]["upper"] == pytest.approx(expected["band_gap_upper"])
    assert "; ".join(found.flags) == expected["flags"]
    assert found.nearest == {}  # the calibration does not say what it compares with
    for name in ("../bad.cif", "..", "\0", "a" * 300 + ".cif", ""):
        crystals, problems = read_upload(name, b"hello")
        assert (len(crystals), len(problems)) == (0, 1)
    _, problems = read_upload("../bad.cif", b"hello")
    assert problems
    assert problems[0].startswith("bad.cif: ")
    assert str(tmp_path.parent) not in problems[0]


def test_the_nearest_known_crystals(tmp_path: Path) -> None:
    models = potnet.load("k_vrh", device="cpu", registry=registry(tmp_path, k_vrh=K))
    assert isinstance(models, Ensemble)
    names = ("Cu", "Si", "Al", "Ni", "Ag", "Au")
    known = [Reference(f"mp-{n}", name, 100.0 + n) for n, name in enumerate(names)]
    vectors = torch.from_numpy(models.embed([bulk(name) for name in names]).crystals)
    around = Surroundings.fit(vectors, vectors + 0.1, known=known)
    Calibration({"k_vrh": Intervals(np.arange(1.0, 10.0), 0.01)}, around).save(tmp_path / "c.safetensors")
    models.calibration = Calibration.load(tmp_path / "c.safetensors")
    (found,) = models.nearest(bulk("Ni"), count=2)
    assert found[0][0] == Reference("mp-3", "Ni", 103.0)
    assert found[0][1] == pytest.approx(0, abs=1e-2)
    assert found[1][1] > found[0][1]
    (crystal,), _ = read_upload("Ni.json", json.dumps(_record(bulk("Ni"))).encode())
    (row, *_) = answer(models, crystal, 0.9).nearest["k_vrh"]
    assert row == {
        "id": "mp-3",
        "formula": "Ni",
        "k_vrh (GPa)": 103.0,
        "distance": pytest.approx(0, abs=0.01),
    }


def _record(atoms: Any) -> dict[str, Any]:
    return {
        "lattice_mat": atoms.cell.tolist(), "elements": atoms.get_chemical_symbols(),
        "coords": atoms.get_scaled_positions().tolist(), "cartesian": False,
    }  # fmt: skip


def test_the_picture_shows_all_images_in_the_cell() -> None:
    pytest.importorskip("plotly")
    from potnet.crystals import from_ase

    figure = picture(from_ase(bulk("NaCl", "rocksalt", a=5.64, cubic=True)))
    counts = {trace.name: len(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert counts == {"Na": 14, "Cl": 13}
    (lines,) = (trace for trace in figure.data if trace.mode == "lines")
    assert len(lines.x) == 3 * 12


def test_what_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("streamlit", reason='Streamlit is not installed: pip install "potnet[serve]"')
    file = registry(tmp_path, k_vrh=K)
    with pytest.raises(ConfigError, match=r"model=k_vhr: .*did you mean k_vrh"):
        serve("k_vhr", registry=str(file))
    with pytest.raises(ConfigError, match="port=99999: give a number"):
        serve("k_vrh", registry=str(file), port=99999)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="another program may have it"):
            serve("k_vrh", registry=str(file), port=taken.getsockname()[1])


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium without a window, which notes what it asks for over the network."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1100"),
        *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    found = selenium.Chrome(options, service=selenium.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cif_in_a_browser(tmp_path: Path, browser: Any) -> None:
    pytest.importorskip("streamlit", reason='Streamlit is not installed: pip install "potnet[serve]"')
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    file = registry(tmp_path, k_vrh=K)
    bulk("Cu", cubic=True).write(tmp_path / "copper.cif")
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a 3\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("serve", "model=k_vrh", f"registry={file}", f"port={port}", "device=cpu")
    server = subprocess.Popen(
        [sys.executable, "-m", "potnet.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    wait = WebDriverWait(browser, 300, ignored_exceptions=[Exception])
    try:
        assert server.stdout is not None
        assert next(line for line in server.stdout if "http" in line).startswith(f"http://127.0.0.1:{port}")
        wait.until(lambda page: page.get(f"http://127.0.0.1:{port}") or True)
        box = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "input[type=file]"))
        box.send_keys(str(tmp_path / "copper.cif"))
        expected = potnet.load("k_vrh", device="cpu", registry=file).predict(tmp_path / "copper.cif")[0]
        shown = (
            "Cu, 4 atoms",
            f"{expected['k_vrh']:.4g} GPa",
            f"90% interval {expected['lower']:.4g} to {expected['upper']:.4g} GPa",
            *filter(None, expected["flags"].split("; ")),
        )
        wait.until(lambda page: _shows(page, *shown), f"not on the page: {shown}")
        wait.until(lambda page: page.find_element(By.CSS_SELECTOR, ".js-plotly-plot canvas"))
        if os.environ.get("POTNET_SCREENSHOT"):
            browser.save_screenshot(os.environ["POTNET_SCREENSHOT"])
        box = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "input[type=file]"))
        box.send_keys(str(tmp_path / "bad.cif"))
        wait.until(lambda page: _shows(page, "bad.cif: "))
        hosts = {urlsplit(url).hostname for url in _asked(browser)}
        assert hosts == {"127.0.0.1"}
    finally:
        server.kill()
        server.communicate()


def _shows(page: Any, *wanted: str) -> bool:
    """Whether the page has all of these texts, which come one after the other."""
    text = str(page.find_element("tag name", "body").text)
    return all(entry in text for entry in wanted)


def _asked(page: Any) -> list[str]:
    """Addresses of all requests that went over a network."""
    found = []
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        params = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(params["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            found.append(params["url"])
    return [url for url in found if url.startswith(("http", "ws"))]
