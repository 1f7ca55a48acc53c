"""Inputs that are wrong, each as a user would meet it: files, and the settings of a command."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crystal_tables import cubic, moduli

Content = str | bytes | Callable[[Path], None]


@dataclass(frozen=True)
class BadInput:
    """One row of the table.

    Attributes:
        area: Heading it stands under.
        what: What is wrong, for a reader.
        overrides: Of `potnet train`.
        files: Name -> content, in the working folder.
        environment: Variables that are set.
        world: What surrounds it, such as a server or a full disk; a name in `test_bad_input.WORLDS`.
        foreign: Pattern of what another library or the system words in its own way.
    """

    area: str
    what: str
    overrides: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    world: str = ""
    foreign: str = ""


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


CIF = """data_Si
_cell_length_a 3.84
_cell_length_b 3.84
_cell_length_c 3.84
_cell_angle_alpha 60
_cell_angle_beta 60
_cell_angle_gamma 60
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0.00 0.00 0.00 1.0
Si2 Si 0.25 0.25 0.25 1.0
"""
POSCAR = "NaCl\n1.0\n" + "4 0 0\n" * 3 + "Na Cl\n1 1\nDirect\n"
OTHER = CIF.replace("data_Si", "data_b")


def stating(line: str) -> str:
    """The CIF with one more line."""
    return CIF.replace("data_Si", f"data_Si\n{line}")


# One site of silicon in a cubic cell.
WITHOUT_ORIGIN = (
    stating("_space_group_IT_number 227")
    .replace(" 60", " 90")
    .replace("3.84", "5.43")
    .replace("Si2 Si 0.25 0.25 0.25 1.0\n", "")
)
XYZ = '2\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T" k_vrh=9.0 split=train\nCs 0 0 0\nCl 2 2 2\n'
GOOD = moduli(6, split="train")
WITHOUT_SPLIT = moduli(6)


def table(what: str, content: str | bytes, name: str = "t.jsonl", *more: str, foreign: str = "") -> BadInput:
    return BadInput(
        "Files",
        what,
        ("data=table", f"data.source.path={name}", *more),
        {name: content} if content else {},
        foreign=foreign,
    )


def csv_table(what: str, structure: str, *more: str, foreign: str = "") -> BadInput:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "cif", "k_vrh", "split"], ["a", structure, "9", "train"]])
    return table(what, text.getvalue(), "t.csv", *more, foreign=foreign)


def folder(what: str, text: str | None, *more: str, area: str = "Files", **files: Content) -> BadInput:
    content = {"mine/a.cif": CIF, **({} if text is None else {"mine/id_prop.csv": text})}
    return BadInput(
        area,
        what,
        ("data=folder", "data.source.path=mine", "split=ratio", *more),
        {**content, **{name.replace("__", "/").replace("_", "."): file for name, file in files.items()}},
    )


def data(
    area: str, what: str, records: list[Any], *overrides: str, world: str = "", **files: Content
) -> BadInput:
    named = {name.replace("_", "."): content for name, content in files.items()}
    overrides = ("data=table", "data.source.path=t.jsonl", *overrides)
    return BadInput(area, what, overrides, {"t.jsonl": lines(*records), **named}, world=world)


def setting(what: str, *overrides: str, foreign: str = "") -> BadInput:
    return BadInput("Settings", what, overrides, foreign=foreign)


def not_ase(path: Path) -> None:
    """A database of something else."""
    with sqlite3.connect(path) as connection:
        connection.execute("create table systems (id integer)")
    connection.close()


BAD_INPUTS = [
    # Files
    table("no such table", "", "none.jsonl"),
    table("a folder in place of a table", "", "."),
    table("a spreadsheet", b"PK", "t.xlsx"),
    table("an empty file", "\n"),
    table("compressed, but cut off or not gzip", b"\x1f\x8b\x08", "t.jsonl.gz", foreign=r"\(.*?\)"),
    table("not text", b"\xff\xfe\x00", foreign=r"\(.*\)"),
    table("a line that is not JSON", lines(GOOD[0]) + "{id: 1}\n", foreign=r"\(.*\)"),
    table("a line that is not a record", "[1, 2]\n"),
    table("semicolons in place of commas", "id;cif;k_vrh\na;b;1\n", "t.csv"),
    table("a line of CSV with too few values", "id,cif,k_vrh\na,b\n", "t.csv"),
    table("two columns of one name", "id,cif,cif\na,b,c\n", "t.csv"),
    table("a quote that never ends", 'id,cif,k_vrh\na,"b,1\n', "t.csv", foreign=r"\(.*\)"),
    table("a Parquet file cut off", b"PAR1 and no more", "t.parquet", foreign=r"\(.*\)"),
    table("not a database of ASE", b"hello", "t.db"),
    BadInput(
        "Files",
        "a database of another program",
        ("data=table", "data.source.path=t.db"),
        {"t.db": not_ase},
        foreign=r"\(.*\)",
    ),
    csv_table("a structure column that is not there", CIF, "data.source.structure=cfi"),
    table("no structure at all", "id,k_vrh\na,1\n", "t.csv"),
    csv_table("text that is not a structure", "see paper"),
    csv_table("a CIF of two structures", CIF + OTHER),
    csv_table("a partly occupied site", CIF.replace("0.25 1.0", "0.25 0.5")),
    csv_table("an unknown element", CIF.replace("Si2 Si", "Xx2 Xx")),
    csv_table("a POSCAR that breaks off", POSCAR),
    csv_table("a POSCAR of VASP 4", POSCAR.replace("Na Cl\n", "") + "0 0 0\n.5 .5 .5\n"),
    csv_table("atoms too close", CIF.replace("0.25 0.25 0.25", "0.05 0.05 0.05")),
    csv_table("a cell in nm", CIF.replace("3.84", "0.384")),
    csv_table("a formula that contradicts the atoms", stating("_chemical_formula_sum SiO")),
    csv_table("a row of a CIF with too many values", CIF.replace("0.00 1.0", "0.00 (2) 1.0")),
    csv_table("an origin that is not stated", WITHOUT_ORIGIN),
    table("an unknown atomic number", lines({**GOOD[0], "z": [999, 17]})),
    table("two atoms on one place", lines({**GOOD[0], "frac": [[0, 0, 0], [1, 0, 0]]})),
    table("a flat cell", lines({**GOOD[0], "lattice": [[4, 0, 0], [8, 0, 0], [0, 0, 4]]})),
    table("a position that is not a number", lines({**GOOD[0], "frac": [[0, 0, 0], [float("nan"), 0, 0]]})),
    table("positions and elements that do not match", lines({**GOOD[0], "z": [55]})),
    table("XYZ that breaks off", XYZ[:-10].replace("2\n", "5\n", 1), "t.xyz"),
    table("XYZ with an unknown element", XYZ.replace("Cl 2", "Zz 2"), "t.xyz"),
    table("a molecule without a cell", "2\nk_vrh=9.0\nN 0 0 0\nN 0 0 1.1\n", "t.xyz"),
    BadInput("Files", "no such folder", ("data=folder", "data.source.path=mine")),
    folder("a folder without a table", None),
    folder("a table without a header, and no names", "a,1\n"),
    folder("a table that names a file that is not there", "id,k_vrh\na,1\nb,2\n"),
    folder("two files of one name", "id,k_vrh\na,1\n", mine__a_vasp="x"),
    folder("more values than columns", "id,k_vrh\na,1\na,1,2\n"),
    folder("a file of two structures", "id,k_vrh\na,1\n", mine__a_cif=CIF + OTHER),
    folder("a table without a comma", "a 1.5\n"),
    folder("a header and nothing else", "id,k_vrh\n"),
    # Labels
    data("Labels", "a target that is not there", GOOD, "target.key=k_vhr"),
    data("Labels", "crystals without a label", [*GOOD, cubic("x", split="train")]),
    data("Labels", "no label at all", [{**GOOD[0], "k_vrh": None}], "data.source.units={k_vrh: GPa}"),
    folder("a label that is text", "id,k_vrh\na,n.d.\n", "data.source.targets=[k_vrh]", area="Labels"),
    data("Labels", "a logarithm of zero or less", [*GOOD, cubic("x", k_vrh=-3.0, split="train")]),
    data("Labels", "an infinite label", [*GOOD, cubic("x", k_vrh=float("inf"), split="train")]),
    data("Labels", "another unit", GOOD, "data.source.units={k_vrh: eV}"),
    data("Labels", "a column for a target that is not there", GOOD, "data.source.targets={k_vrh: k_vhr}"),
    # Ids
    data("Ids", "two crystals of one id", [*GOOD, GOOD[0]]),
    data("Ids", "a crystal without an id", [{**GOOD[0], "id": None}]),
    data("Ids", "an id column that is not there", GOOD, "data.source.id=jid"),
    # Splits
    data("Splits", "data without a split", WITHOUT_SPLIT),
    data("Splits", "an unknown part of the split", [{**GOOD[0], "split": "tarin"}]),
    data("Splits", "no crystal for training", moduli(3, split="test")),
    data("Splits", "one crystal for training", moduli(1, split="train")),
    data(
        "Splits",
        "shares above one",
        WITHOUT_SPLIT,
        "split=ratio",
        "data.split.train=0.9",
        "data.split.val=0.2",
    ),
    data("Splits", "more crystals than there are", WITHOUT_SPLIT, "split=ratio", "data.split.train=60"),
    data("Splits", "one formula only", moduli(20), "split=formula"),
    data("Splits", "a fold that is not there", WITHOUT_SPLIT, "split=kfold", "data.split.fold=5"),
    data("Splits", "more folds than crystals", WITHOUT_SPLIT, "split=kfold", "data.split.folds=7"),
    data("Splits", "no such file of a split", WITHOUT_SPLIT, "split=file", "data.split.path=s.json"),
    data(
        "Splits",
        "ids that are not in the data",
        WITHOUT_SPLIT,
        "split=file",
        "data.split.path=s.json",
        s_json='{"train": ["c0", "c1", "mp-1"]}',
    ),
    data(
        "Splits",
        "an id in two parts",
        WITHOUT_SPLIT,
        "split=file",
        "data.split.path=s.json",
        s_json='{"train": ["c0", "c1"], "test": ["c1"]}',
    ),
    data(
        "Splits",
        "a file of a split without parts",
        WITHOUT_SPLIT,
        "split=file",
        "data.split.path=s.csv",
        s_csv="id\nc0\n",
    ),
    # Settings
    setting("a key that is not there", "data.batchsize=3"),
    setting("a data set that is not there", "data=jarvis", foreign=r"\(valid: .*\)"),
    setting("a model that is not there", "model=potnte", foreign=r"\(valid: .*\)"),
    setting("no path", "data=table"),
    setting("text in place of a number", "data.batch_size=many"),
    setting("an empty batch", "data.batch_size=0"),
    setting("no crystal at all", "data.limit=0"),
    setting("no cell as small as that", "data.max_atoms=0"),
    setting("an unknown choice", "data.on_error=skp"),
    setting("an accuracy beyond float64", "features.accuracy=1e-20"),
    setting("a negative radius", "features.neighbors.cutoff=-1"),
    setting("an unknown scale", "target.transform=ln"),
    setting("a run without an epoch", "trainer.max_epochs=0"),
    setting("a negative seed", "seed=-1"),
    # Network
    BadInput("Network", "no key", ("data=mp_api",), environment={"MP_API_KEY": ""}),
    BadInput("Network", "a key of the old kind", ("data=mp_api",), environment={"MP_API_KEY": "x" * 16}),
    BadInput("Network", "a key that is refused", ("data=mp_api",), world="refusing_client"),
    BadInput("Network", "the Materials Project out of reach", ("data=mp_api",), world="unreachable_client"),
    BadInput("Network", "a property it does not have", ("data=mp_api", "target.key=exfoliation_energy")),
    BadInput(
        "Network", "offline, and nothing cached", ("data=mp_megnet", "target=band_gap"), world="offline"
    ),
    BadInput("Network", "a file that is gone", ("data=mp_megnet", "target=band_gap"), world="gone"),
    BadInput("Network", "a page in place of the file", ("data=mp_megnet", "target=band_gap"), world="page"),
    BadInput(
        "Network", "no such copy of the file", ("data=mp_megnet", "target=band_gap", "data.path=megnet.zip")
    ),
    BadInput(
        "Network",
        "a broken copy of the file",
        ("data=mp_megnet", "target=band_gap", "data.path=megnet.zip"),
        {"megnet.zip": b"PK\x03\x04 and no more"},
    ),
    # Disk
    data("Disk", "a cache folder that is a file", GOOD, "data.cache_dir=file", file=""),
    data("Disk", "a full disk", GOOD, world="full_disk"),
]
