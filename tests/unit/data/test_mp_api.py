"""The Materials Project by a client that answers as mp-api does (recorded shapes of version 0.46)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from potnet.data import DataError, MaterialsProjectSource
from potnet.data.sources import mp_api, mp_client

KEY = "k" * 32


class MPRestError(Exception):
    """As in mp_api.client.core.exceptions."""


def document(number: int, **fields: Any) -> dict[str, Any]:
    """A summary document as the client returns it with `use_document_model=False`."""
    side = 4.0 + 0.01 * number
    return {
        "material_id": f"mp-{number}",
        "structure": {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {"matrix": (np.eye(3) * side).tolist(), "a": side, "pbc": [True] * 3},
            "sites": [
                {"species": [{"element": "Cs", "occu": 1}], "abc": [0, 0, 0], "label": "Cs"},
                {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5], "label": "Cl"},
            ],
        },
        "formation_energy_per_atom": -1.0 - number,
        "energy_per_atom": -3.0,
        "energy_above_hull": 0.0,
        "band_gap": 5.0,
        "bulk_modulus": {"voigt": 20.0, "reuss": 18.0, "vrh": 19.0},
        "shear_modulus": {"voigt": 10.0, "reuss": 8.0, "vrh": 9.0},
        **fields,
    }


class FakeServer:
    """Holds documents and notes what it is asked; `connect` is what the source takes."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.documents = {entry["material_id"]: entry for entry in documents}
        self.searches: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lost: set[str] = set()

    def connect(self, key: str) -> Any:
        self.keys.append(key)
        summary = SimpleNamespace(search=self.search)
        return SimpleNamespace(db_version="2026.04.1", materials=SimpleNamespace(summary=summary))

    def search(self, fields: list[str], material_ids: list[str] | None = None, **query: Any) -> list[Any]:
        self.searches.append({"fields": fields, "material_ids": material_ids, **query})
        ids = [id for id in material_ids or self.documents if id not in (self.lost if material_ids else ())]
        return [{field: self.documents[id].get(field) for field in fields} for id in reversed(ids)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key in the environment, and no .env."""
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


def source(tmp_path: Path, server: FakeServer, **settings: Any) -> MaterialsProjectSource:
    return MaterialsProjectSource(cache_dir=tmp_path / "cache", connect=server.connect, **settings)


def test_crystals_properties_and_units(tmp_path: Path):
    server = FakeServer([document(2), document(1, bulk_modulus=None, shear_modulus={"vrh": None})])
    mp = source(tmp_path, server)
    data = mp.load()
    assert [crystal.id for crystal in data.crystals] == ["mp-1", "mp-2"]
    assert data.crystals[0].formula == "ClCs"
    np.testing.assert_array_equal(data.table.values("k_vrh"), [np.nan, 19.0])
    np.testing.assert_array_equal(data.table.values("g_vrh"), [np.nan, 9.0])
    np.testing.assert_array_equal(data.table.values("k_voigt"), [np.nan, 20.0])
    assert data.table.values("formation_energy_per_atom").tolist() == [-2.0, -3.0]
    assert data.table.values("total_energy_per_atom").tolist() == [-3.0, -3.0]
    assert data.targets["band_gap"] == "eV"
    assert data.targets["energy_above_hull"] == "eV/atom"
    assert "CC BY 4.0" in data.licence
    assert "2026.04.1" in data.citation
    assert server.keys == [KEY]


def test_objects_in_place_of_dictionaries(tmp_path: Path):
    entry = document(1)
    entry["bulk_modulus"] = SimpleNamespace(vrh=19.0, voigt=20.0)
    server = FakeServer([])
    server.search = lambda **_: [SimpleNamespace(**entry)]  # type: ignore[method-assign]
    assert source(tmp_path, server).load().table.values("k_vrh").tolist() == [19.0]


def test_query(tmp_path: Path):
    server = FakeServer([document(1)])
    mp = source(
        tmp_path,
        server,
        elements=["O", "Li"],
        exclude_elements=["Pb"],
        num_sites=[1, 20],
        energy_above_hull=0.05,
        is_stable=True,
        require=["k_vrh", "band_gap"],
    )
    mp.load()
    first, second = server.searches
    assert first == {
        "fields": ["material_id"],
        "material_ids": None,
        "deprecated": False,
        "include_gnome": False,
        "elements": ["Li", "O"],
        "exclude_elements": ["Pb"],
        "num_sites": (1, 20),
        "energy_above_hull": (0.0, 0.05),
        "is_stable": True,
        "has_props": ["elasticity"],
        "k_vrh": (0, 10_000),
    }
    assert second["material_ids"] == ["mp-1"]
    assert "structure" in second["fields"]


def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mp_api, "_PAGE", 3)
    server = FakeServer([document(number) for number in range(8)])
    assert len(source(tmp_path, server).load()) == 8
    assert [len(search["material_ids"]) for search in server.searches[1:]] == [3, 3, 2]
    server.lost = {"mp-4"}
    with pytest.raises(DataError, match=r"sent 2 of 3 crystals that it has \(mp-4 is missing\)"):
        source(tmp_path, server, is_stable=True).load()
    file = source(tmp_path, server, is_stable=True).file
    assert [path.name for path in file.parent.glob(f"{file.name[:16]}*")] == [f"{file.name}.lock"]


def test_asked_once_and_then_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = FakeServer([document(1), document(2)])
    mp = source(tmp_path, server)
    expected = mp.content_hash()
    monkeypatch.delenv("MP_API_KEY")
    again = source(tmp_path, FakeServer([]))
    assert again.content_hash() == expected
    assert len(again.load()) == 2
    notes = json.loads(mp.file.with_name(mp.file.name.replace(".jsonl.gz", ".json")).read_text())
    assert notes["database_version"] == "2026.04.1"
    assert notes["crystals"] == 2
    assert notes["query"] == {"deprecated": False, "include_gnome": False}
    assert KEY not in json.dumps(notes)
    mp.file.write_bytes(mp.file.read_bytes()[:-5] + b"12345")
    with pytest.raises(DataError, match="the file is not what it should be"):
        source(tmp_path, FakeServer([])).content_hash()
    mp.file.unlink()
    monkeypatch.setenv("MP_API_KEY", KEY)
    assert source(tmp_path, server).content_hash() == expected


def test_another_query_is_another_file(tmp_path: Path):
    server = FakeServer([document(1)])
    files = [
        source(tmp_path, server, **query).file for query in ({}, {"is_stable": True}, {"elements": ["O"]})
    ]
    assert len(set(files)) == 3


def test_disordered_structures_are_unreadable(tmp_path: Path):
    bad = document(2)
    bad["structure"]["sites"][0]["species"] = [{"element": "Cs", "occu": 0.5}]
    server = FakeServer([document(1), bad])
    with pytest.raises(DataError, match=r"crystal 'mp-2': site 0 is disordered"):
        source(tmp_path, server).load()
    data = source(tmp_path, server).load(on_error="skip")
    assert [entry.id for entry in data.removed] == ["mp-2"]


def test_missing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MP_API_KEY")
    server = FakeServer([document(1)])
    message = (
        r"asked for .*is_stable=True, and nothing is cached: get a key at .* MP_API_KEY.*data=embedded works"
    )
    with pytest.raises(DataError, match=message):
        source(tmp_path, server, is_stable=True).content_hash()
    assert server.keys == []
    (tmp_path / ".env").write_text(f"MP_API_KEY={KEY}\n")
    assert len(source(tmp_path, server).load()) == 1


def test_key_of_the_wrong_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MP_API_KEY", "x" * 16)
    with pytest.raises(DataError, match=r"MP_API_KEY has 16 characters; keys have 32"):
        source(tmp_path, FakeServer([])).load()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MPRestError(
                "REST query returned with error status code 403 on URL https://api.materialsproject.org/"
                "materials/summary/ with message:\nInvalid authentication credentials"
            ),
            r"refuses the key in MP_API_KEY \(REST query .*403",
        ),
        (
            MPRestError("REST query returned with error status code 500 on URL .../?material_ids=mp-403"),
            r"cannot answer \(MPRestError: .*500",
        ),
        (ConnectionError("Name or service not known"), "cannot be reached .*data=embedded always works"),
        (
            MPRestError("REST query timed out on URL x. Try again with a smaller request."),
            "cannot be reached",
        ),
    ],
)
@pytest.mark.parametrize("where", ["connect", "search"])
def test_errors_of_the_client(tmp_path: Path, error: Exception, message: str, where: str):
    server = FakeServer([document(1)])

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    setattr(server, where, fail)
    with pytest.raises(DataError, match=message):
        source(tmp_path, server).load()


def test_no_crystal(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no crystal for this query: deprecated=False"):
        source(tmp_path, FakeServer([])).load()


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mp_client, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "potnet\[mp\]"'):
        mp_client.mp_rester(KEY)


def test_no_network_is_noticed_before_the_client_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mp_client, "find_spec", lambda name: name)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("MP_API_ENDPOINT", f"https://127.0.0.1:{taken.getsockname()[1]}/")
        with pytest.raises(
            DataError, match=r"cannot be reached \(cannot reach 127\.0\.0\.1 \(Connection refused"
        ):
            MaterialsProjectSource(cache_dir=tmp_path).content_hash()


def test_settings():
    with pytest.raises(DataError, match="has no 'k_vhr'; did you mean k_vrh"):
        MaterialsProjectSource(require=["k_vhr"])
    with pytest.raises(DataError, match=r"num_sites=\[5, 2\]: give \[smallest, largest\]"):
        MaterialsProjectSource(num_sites=[5, 2])
