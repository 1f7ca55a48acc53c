"""The data sets that download, from tiny files in the published layout: own copies, and a local server."""

from __future__ import annotations

import copy
import functools
import gzip
import io
import json
import logging
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import http_files
import numpy as np
import pytest
from http_files import FileServer

from potnet.config import build, compose, plain
from potnet.data import DataError, Dataset
from potnet.data.download.downloader import DownloadError
from potnet.data.sources import json_stream
from potnet.data.sources.json_stream import JsonStream
from potnet.data.sources.plain_pickle import load_plain

FILES = Path(__file__).parents[2] / "fixtures" / "published"
JARVIS = FILES / "jdft_3d-8-18-2021.json.zip"
MEGNET = FILES / "megnet.json.zip"
PHONONS = FILES / "matbench_phonons.json.gz"
# The fixtures are smaller than the data sets, and have other checksums.
TINY = {
    "jarvis_dft_3d": ["data.source.crystals=null", "target=band_gap_mbj"],
    "mp_megnet": ["data.source.crystals=null", "target=band_gap"],
    "mp_elastic": [
        f"data.source.moduli.{key}.files.{part}.crystals={count}"
        for key, counts in {"k_vrh": (24, 8, 8), "g_vrh": (24, 7, 8)}.items()
        for part, count in zip(("train", "val", "test"), counts, strict=True)
    ],
    "matbench": [
        "target=phonon_peak",
        "data.source.tasks.phonons.checksum=null",
        "data.source.tasks.phonons.crystals=30",
    ],
}
OWN = {"jarvis_dft_3d": JARVIS, "mp_megnet": MEGNET, "mp_elastic": FILES, "matbench": PHONONS}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")  # counts before the other


@pytest.fixture
def server() -> Iterator[FileServer]:
    with http_files.running(b"") as server:
        yield server


def source(data: str, *overrides: str, tiny: bool = True) -> Any:
    return build(copy.deepcopy(composed(data, *(TINY[data] if tiny else []), *overrides)), "data.source")


@functools.cache
def composed(data: str, *overrides: str) -> dict[str, Any]:
    settings: dict[str, Any] = plain(compose("train", [f"data={data}", *overrides]).data.source)
    return settings


def own(data: str, path: Path | None = None, *overrides: str) -> Any:
    if path is None:
        return source(data, f"data.path={OWN[data]}", *overrides)
    found = source(data, *overrides)
    found.path = path
    return found


def targets(data: Dataset) -> dict[str, int]:
    """Target -> crystals that have it."""
    return {key: int(np.isfinite(data.table.values(key)).sum()) for key in data.targets}


def zipped(path: Path, records: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("records.json", json.dumps(records))
    return path


def test_jarvis(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = own("jarvis_dft_3d").load()
    assert data.name == "jarvis_dft_3d"
    assert targets(data) == {
        "formation_energy_per_atom": 40,
        "total_energy_per_atom": 40,
        "energy_above_hull": 40,
        "band_gap_opt": 40,
        "band_gap_mbj": 24,
        "k_voigt": targets(data)["k_voigt"],
        "g_voigt": targets(data)["g_voigt"],
    }
    assert data.targets["formation_energy_per_atom"] == "eV/atom"
    assert data.split is None
    # The published splits count a crystal whose id another has.
    ids = [crystal.id for crystal in data.crystals]
    assert ids[-1] == f"{ids[3]}#2"
    assert "1 crystals have the id of another and are called ID#2" in caplog.text
    assert "public domain" in data.licence
    assert "10.1038/s41524-020-00440-1" in data.citation


def test_megnet() -> None:
    data = own("mp_megnet").load()
    assert targets(data) == {"formation_energy_per_atom": 40, "band_gap": 40}
    assert "CC BY 4.0" in data.licence


@pytest.mark.parametrize(("key", "sizes"), [("k_vrh", (24, 8, 8)), ("g_vrh", (24, 7, 8))])
def test_elastic_is_in_gpa_with_its_split(key: str, sizes: tuple[int, int, int]) -> None:
    data = own("mp_elastic", None, f"target={key}").load()
    assert data.name == f"mp_elastic_{key}"
    assert data.targets == {key: "GPa"}
    assert [list(data.split.values()).count(part) for part in ("train", "val", "test")] == list(sizes)
    entry = pickle.loads((FILES / "bulk_megnet_train.pkl").read_bytes())[0]
    first = data.crystals[0]
    assert first.id == entry["id"] == "mp-2"
    if key == "k_vrh":
        assert first.properties[key] == pytest.approx(10 ** entry["bulk modulus"])
        assert first.properties[key] == pytest.approx(160, abs=0.1)  # palladium


def test_matbench() -> None:
    data = own("matbench").load()
    assert data.name == "matbench_phonons"
    assert data.targets == {"phonon_peak": "cm^-1"}
    assert [crystal.id for crystal in data.crystals[:2]] == ["mb-phonons-01", "mb-phonons-02"]
    assert data.crystals[0].properties["phonon_peak"] == 98.5858
    assert "10.1038/s41524-020-00406-3; G. Petretto" in data.citation


def test_matbench_moduli_are_in_gpa(tmp_path: Path) -> None:
    table = json.loads(gzip.decompress(PHONONS.read_bytes()))
    table["columns"] = ["structure", "log10(K_VRH)"]
    table["data"] = [[structure, 2.0] for structure, _ in table["data"]]
    path = tmp_path / "mine.json.gz"
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    overrides = ["data.source.tasks.log_kvrh.checksum=null", "data.source.tasks.log_kvrh.crystals=null"]
    data = source("matbench", "target=k_vrh", f"data.path={path}", *overrides, tiny=False).load()
    assert data.crystals[0].properties == {"k_vrh": 100.0}
    assert data.crystals[0].id == "mb-log-kvrh-01"


@pytest.mark.parametrize("data", ["jarvis_dft_3d", "mp_megnet", "mp_elastic", "matbench"])
def test_from_a_mirror_and_then_without_network(data: str, server: FileServer, tmp_path: Path) -> None:
    paths = sorted(OWN[data].glob("bulk*")) if data == "mp_elastic" else [OWN[data]]

    def serve_by_name(request: http_files.FileRequest) -> None:
        server.content = (FILES / request.path.rpartition("/")[2]).read_bytes()
        http_files.serve(request)

    server.script = [serve_by_name] * 10
    cache = f"data.cache_dir={tmp_path}"
    fetched = source(data, cache, f"data.path={server.url('mirror/')}")
    digest = fetched.content_hash()
    found = fetched.load()
    assert len(server.requests) == len(paths)
    for path in paths:
        assert (tmp_path / "downloads" / path.name).read_bytes() == path.read_bytes()
    again = source(data, cache)
    assert again.content_hash() == digest == own(data).content_hash() == found.content_hash
    assert [crystal.id for crystal in again.load().crystals] == [crystal.id for crystal in found.crystals]
    assert len(server.requests) == len(paths)


def test_a_checksum_of_the_description_is_compared(server: FileServer, tmp_path: Path) -> None:
    server.content = PHONONS.read_bytes()
    where = [f"data.cache_dir={tmp_path}", f"data.path={server.url('matbench_phonons.json.gz')}"]
    overrides = ["target=phonon_peak", *where]
    with pytest.raises(DownloadError, match="another checksum"):
        source("matbench", *overrides, tiny=False).load()
    with pytest.raises(DataError, match=r"data\.path: .* has another checksum"):
        source("matbench", "target=phonon_peak", f"data.path={PHONONS}", tiny=False).load()


def test_another_version_is_noticed() -> None:
    with pytest.raises(DataError, match=r"hold 40 crystals, but this data set has 55723: .*crystals=null"):
        source("jarvis_dft_3d", f"data.path={JARVIS}", tiny=False).load()
    with pytest.raises(DataError, match="it holds 24 crystals, but the train part has 4664"):
        source("mp_elastic", f"data.path={FILES}", tiny=False).load()


def test_what_is_read_is_part_of_the_hash() -> None:
    one = own("jarvis_dft_3d").content_hash()
    other = own("jarvis_dft_3d", None, "data.source.targets.band_gap_mbj.column=mepsx").content_hash()
    assert (
        one
        != other
        == own("jarvis_dft_3d", None, "data.source.targets.band_gap_mbj.column=mepsx").content_hash()
    )


@pytest.mark.parametrize(
    ("data", "overrides", "message"),
    [
        ("mp_elastic", ["target=band_gap"], "mp_elastic has no target 'band_gap'; valid are: g_vrh, k_vrh"),
        ("matbench", ["target=k_voigt"], "no task of Matbench has the target 'k_voigt'; did you mean"),
        (
            "matbench",
            ["data.task=phonon"],
            "data.task=phonon: there is no such task .*; did you mean phonons",
        ),
        (
            "matbench",
            ["data.task=matbench_jdft2d"],
            "its target is exfoliation_energy, not k_vrh: add target=",
        ),
        ("jarvis_dft_3d", ["data.source.files=[{hash: 1}]"], "files: unknown key 'hash'"),
        ("jarvis_dft_3d", ["data.source.files=[{url: x}]"], "files: .*missing .*'name'"),
        (
            "jarvis_dft_3d",
            ["+data.source.targets.k_voigt.scale=ln"],
            "scale of column 'bulk_modulus_kv': 'ln'",
        ),
    ],
)
def test_descriptions_that_cannot_be_used(data: str, overrides: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(data, *overrides, tiny=False)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"jid": "a"}, "not a JSON list of records"),
        ([1], "record 0: an object with jid and atoms is wanted, got int"),
        ([{"jid": "a"}], "record 0: there is no atoms; it has jid"),
        ([{"atoms": {}}], "record 0: there is no jid; it has atoms"),
        ([{"jid": "a", "atoms": {"coords": []}}], "crystal 'a': .*needs lattice_mat, elements"),
        ([], "there is no crystal"),
    ],
)
def test_records_of_another_layout(tmp_path: Path, records: Any, message: str) -> None:
    path = zipped(tmp_path / "mine.zip", records)
    with pytest.raises(DataError, match=message):
        own("jarvis_dft_3d", path).load()


def test_an_unreadable_crystal_can_be_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(JARVIS) as archive:
        records = json.loads(archive.read(archive.namelist()[0]))
    records[5]["atoms"]["elements"][0] = "Xx"
    path = zipped(tmp_path / "mine.zip", records)
    with pytest.raises(DataError, match="'Xx', which is not an element"):
        own("jarvis_dft_3d", path).load()
    data = own("jarvis_dft_3d", path).load("skip")
    assert len(data) == 39
    assert [(entry.id, entry.reason) for entry in data.removed] == [(records[5]["jid"], "unreadable")]


def test_archives_of_another_layout(tmp_path: Path) -> None:
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"one \.json file is wanted in it, there are 0"):
        own("jarvis_dft_3d", path).load()
    for content in (b"[]", b'{"index": [], "columns": ["a"], "data": []}', b'{"columns": ["structure"]}'):
        gz = tmp_path / "mine.json.gz"
        gz.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match="not a table as Matbench writes it"):
            own("matbench", gz, "data.source.tasks.phonons.crystals=null").load()


@pytest.mark.parametrize("content", [{"a": 1}, [{"id": "a"}]])
def test_pickles_of_another_layout(tmp_path: Path, content: Any) -> None:
    for path in FILES.glob("bulk*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "bulk_megnet_val.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"bulk_megnet_val\.pkl.*(a list of records is wanted|has 8)"):
        own("mp_elastic", tmp_path).load()


class Malicious:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("exit 1",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_plain_data(protocol: int) -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.array(["Na", "Cl"]), np.array([1, 2], dtype=np.int32)]
    numbers = [1, 2.5, True, None, 1j, np.float64(3), np.int64(4), np.bool_(True), np.str_("x")]
    content = {"a": [*numbers, "text", b"bytes"], "b": (1, {2}), "c": frozenset([3])}
    loaded = load_plain(pickle.dumps({"plain": content, "arrays": arrays}, protocol), "x")
    assert loaded["plain"] == content
    for found, array in zip(loaded["arrays"], arrays, strict=True):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Malicious(), r"asks for (posix|nt)\.system, which is not plain data: nothing of it was run"),
        (Path("x"), r"asks for pathlib"),
        (eval, r"asks for (builtins|__builtin__)\.eval"),
        (np.zeros(1, dtype=[("a", "f8")]), r"asks for numpy\.dtype"),
        (np.random.RandomState(0), r"asks for numpy"),
    ],
    ids=["system", "path", "eval", "fields", "random"],
)
def test_pickles_of_anything_else_are_refused(content: Any, message: str, protocol: int) -> None:
    with pytest.raises(DataError, match=message):
        load_plain(pickle.dumps(content, protocol), "x.pkl")


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2, 3])[:-3], b"\x80\x04P1\n."])
def test_broken_pickles(content: bytes) -> None:
    with pytest.raises(DataError, match="pickle"):
        load_plain(content, "x.pkl")


def listed(text: str, key: str | None = None) -> list[Any]:
    stream = JsonStream(io.StringIO(text))
    if key is not None:
        stream.find(key)
    return list(stream.elements())


@pytest.mark.parametrize("block", [1, 3, 2**20])
@pytest.mark.parametrize("values", [[], [1], [123456, {"a": [1, "]"]}, "x,[", None, 2.5]])
def test_lists_element_by_element(values: list[Any], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK", block)
    for text in (json.dumps(values), json.dumps(values, indent=2) + "\n"):
        assert listed(text) == values
    whole = json.dumps({"index": [0, 12], "data": values, "x": 1}, indent=1)
    assert listed(whole, "data") == values


@pytest.mark.parametrize("text", ["", "{}", "[1", "[1 2]", "[1,]", "[,]"])
def test_lists_that_break_off(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        listed(text)


@pytest.mark.parametrize("text", ["[]", "{}", "{1: 2}", '{"a" 1}', '{"a": 1', '{"a": 1, "c": 2}'])
def test_members_that_are_not_there(text: str) -> None:
    with pytest.raises((json.JSONDecodeError, KeyError)):
        listed(text, "b")


def test_addresses_are_those_of_jarvis_tools() -> None:
    figshare = pytest.importorskip("jarvis.db.figshare")
    known = figshare.get_db_info()
    for data, name in {"jarvis_dft_3d": "dft_3d_2021", "mp_megnet": "megnet"}.items():
        (file,) = source(data).files
        assert [file.url, file.name.removesuffix(".zip")] == known[name][:2]
