import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from crystal_examples import NAMES, environments, named

from potnet.crystals import Crystal, CrystalError, iterate_crystals, read_crystals, standardize

CIF = """\
data_{name}
_cell_length_a 5.64(1)
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{columns}
{sites}
"""
FM3M = "_space_group_IT_number 225\n_space_group_name_H-M_alt 'F m -3 m'\n_symmetry_cell_setting cubic"
SALT_SITES = ["Na1 Na1+ 0 0 0", "Cl1 Cl1- 0.5 0.5 0.5"]


def cif(sites=SALT_SITES, symmetry=FM3M, columns="", name="salt"):
    return CIF.format(sites="\n".join(sites), symmetry=symmetry, columns=columns, name=name)


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_cif_with_symmetry(tmp_path):
    (crystal,) = read_crystals(write(tmp_path, "my.salt.cif", cif()))
    assert crystal.id == "my.salt"
    assert sorted(crystal.z.tolist()) == [11] * 4 + [17] * 4
    np.testing.assert_allclose(environments(crystal), environments(named("NaCl")))


def test_a_cif_without_symmetry_is_taken_at_its_word(tmp_path):
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(symmetry="")))
    assert len(crystal) == 2


def test_a_cif_with_listed_operations(tmp_path):
    operations = (
        "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x+1/2,y+1/2,z'\n'x+1/2,y,z+1/2'\n'x, 0.5+y, 1/2+z'"
    )
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(symmetry=operations)))
    np.testing.assert_allclose(environments(crystal), environments(named("NaCl")))


def test_every_symmetry_copy_listed_anyway_gives_each_atom_once(tmp_path):
    sites = [*SALT_SITES, "Na2 Na 0.5 0.5 0", "Na3 Na 0.5 0 0.5", "Na4 Na 0 0.5 0.5", "Cl2 Cl 0 0 0.5"]
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(sites)))
    assert sorted(crystal.z.tolist()) == [11] * 4 + [17] * 4


def test_coordinates_rounded_off_a_special_position(tmp_path):
    hexagonal = (
        cif(["Mg1 Mg 0.333 0.667 0.25"], symmetry="_symmetry_Int_Tables_number 194")
        .replace("_b 5.64", "_b 15.64")
        .replace("_a 5.64(1)", "_a 15.64")
        .replace("_gamma 90", "_gamma 120")
    )
    (crystal,) = read_crystals(write(tmp_path, "mg.cif", hexagonal))
    assert len(crystal) == 2


def test_occupancy_one_and_unknown_occupancy_are_full(tmp_path):
    sites = ["Na1 Na 0 0 0 1.00 .", "Cl1 Cl 0.5 0.5 0.5 ? ."]
    columns = "_atom_site_occupancy\n_atom_site_disorder_group"
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(sites, columns=columns)))
    assert len(crystal) == 8


def test_deuterium_is_hydrogen(tmp_path):
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(["Li1 Li 0 0 0", "D1 D 0.5 0.5 0.5"])))
    assert set(crystal.z.tolist()) == {1, 3}


def test_blocks_of_a_cif(tmp_path):
    text = "data_global\n_publ_author 'Å. Ström'\n" + cif(name="one") + cif(symmetry="", name="two")
    crystals = read_crystals(write(tmp_path, "both.cif", text))
    assert [(c.id, len(c)) for c in crystals] == [("both:0", 8), ("both:1", 2)]


def no_cell():
    return cif().replace("_cell_length_b 5.64\n", "")


BAD_CIF = {
    "partly occupied": (
        cif(["Na1 Na 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 0.75(2)"], columns="_atom_site_occupancy"),
        r"site Cl1 \(Cl\) is partly occupied \(0.75\): order it",
    ),
    "disordered": (
        cif(["Na1 Na 0 0 0 .", "Cl1 Cl 0.5 0.5 0.5 2"], columns="_atom_site_disorder_group"),
        r"site Cl1 is disordered \(group 2\)",
    ),
    "two elements on one site": (
        cif([*SALT_SITES, "K1 K 0.5 0.5 0"]),
        r"sites Na1 \(Na\) and K1 \(K\) are at one position",
    ),
    "unknown element": (
        cif(["Na1 Na 0 0 0", "Q7 Qq 0.5 0.5 0.5"]),
        "site Q7 is 'Qq', which is not an element",
    ),
    "water as a label": (cif(["Wat1 ? 0 0 0"]), "site Wat1 is 'Wat1', which is not an element for certain"),
    "no coordinate": (cif(["Na1 Na 0 0 0", "H1 H ? ? ?"]), r"site H1 has no position: \? \? \?"),
    "no cell": (no_cell(), "has no cell: _cell_length_b is missing"),
    "flat cell": (cif().replace("_gamma 90", "_gamma 0"), "no volume.* 0.0]"),
    "impossible angles": (
        cif().replace("_gamma 90", "_gamma 179").replace("_beta 90", "_beta 20"),
        "no volume",
    ),
    "zero length": (cif().replace("_c 5.64", "_c 0"), "no volume"),
    "no atoms": ("data_x\n_cell_length_a 3\n", "has no cell"),
    "no coordinates": (cif().replace("_fract_x", "_foo_x"), "has atoms but no coordinates"),
    "unknown space group": (
        cif(symmetry="_symmetry_space_group_name_H-M 'Q 7'"),
        "'Q 7' is not known, and no operations",
    ),
    "space groups that disagree": (
        cif(symmetry="_symmetry_Int_Tables_number 999"),
        "there is no space group number 999",
    ),
    "no operation": (
        cif(symmetry="loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x,y'"),
        "'x,y' is no symmetry operation",
    ),
    "short row": (cif(["Na1 Na 0 0"]), "has 4 values for 5 columns: 'Na1 Na 0 0'"),
    "no CIF": ("once upon a time", "not a valid CIF: no line begins with data_"),
    "empty": ("", "there is no crystal in it"),
    "text alone": ("data_x\n_publ_author 'me'\n", "there is no crystal in it"),
    "cut off in a text": ("data_x\n_publ_section_title\n;\nnever ends", "not a valid CIF"),
}


@pytest.mark.parametrize("name", BAD_CIF)
def test_bad_cifs(tmp_path, name):
    text, message = BAD_CIF[name]
    path = write(tmp_path, "bad.cif", text)
    with pytest.raises(CrystalError, match=message) as caught:
        read_crystals(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "file",
    [
        "x.cif",
        "x.cif.gz",
        "POSCAR",
        "POSCAR.gz",
        "x.vasp",
        "x.extxyz",
        "x.xyz.gz",
        "x@2.vasp",
        "x.json",
        "x.xsf",
    ],
)
def test_all_formats_give_the_same_crystal(tmp_path, name, file):
    from ase.io import write as ase_write

    crystal = named(name)
    atoms = crystal.to_ase()
    atoms.info.clear()
    kind = {"POSCAR": "vasp", "POSCAR.gz": "vasp", "x.vasp": "vasp", "x.xyz.gz": "extxyz"}.get(file)
    plain = file.replace("@", "")
    ase_write(tmp_path / plain, atoms, format=kind)
    (tmp_path / plain).rename(tmp_path / file)
    (again,) = read_crystals(tmp_path / file)
    assert again.id == (f"{tmp_path.name}/POSCAR" if file.startswith("POSCAR") else file.split(".")[0])
    assert again.formula == crystal.formula
    np.testing.assert_allclose(
        environments(standardize(again)), environments(standardize(crystal)), atol=1e-5
    )


FRAME = """2
Lattice="5.6 0 0 0 5.6 0 0 0 5.6" Properties=species:S:1:pos:R:3 energy=-{n}.5 pbc="T T T"
Na 0 0 0
Cl 2.8 0 {n}
"""


def test_frames_of_an_extended_xyz(tmp_path):
    path = write(tmp_path, "run.extxyz", "".join(FRAME.format(n=n) for n in range(3)) + "\n\n")
    crystals = read_crystals(path)
    assert [c.id for c in crystals] == ["run:0", "run:1", "run:2"]
    assert [c.properties["energy"] for c in crystals] == [-0.5, -1.5, -2.5]
    assert [c.positions[1, 2] for c in crystals] == [0, 1, 2]


def test_a_bad_frame_does_not_cost_the_others(tmp_path):
    frames = [FRAME.format(n=n) for n in range(6)]
    frames[1] = frames[1].replace("Cl", "Qq")
    frames[2] = frames[2].replace("Cl 2.8", "Cl nan")
    frames[3] = "1\njust a molecule\nHe 0 0 0\n"
    frames[4] = frames[4].replace("Cl 2.8 0 4", "Cl 2.8")
    outcomes = list(iterate_crystals(write(tmp_path, "run.xyz", "".join(frames))))
    assert [type(o) for o in outcomes] == [Crystal, *[CrystalError] * 4, Crystal]
    assert outcomes[5].id == "run:5"
    messages = [str(o) for o in outcomes[1:5]]
    for number, expected in enumerate(
        [
            "site 1 is 'Qq', which is not an element",
            "site 1 (Cl) has no finite position",
            "no periodicity",
            "site 1 has 2 values for 4 columns: 'Cl 2.8'",
        ],
        1,
    ):
        assert messages[number - 1].startswith(f"{tmp_path / 'run.xyz'}, frame {number}: ")
        assert expected in messages[number - 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FRAME.format(n=0) + "5\nLattice\nNa 0 0 0\n", "frame 1: it breaks off: 5 atoms announced, 1 there"),
        (
            FRAME.format(n=0) + "Na 0 0 0\n",
            "frame 1: a frame begins with its number of atoms, got 'Na 0 0 0'",
        ),
        ("-3\n\n", "number of atoms"),
    ],
)
def test_an_xyz_that_breaks_off(tmp_path, text, message):
    with pytest.raises(CrystalError, match=message):
        read_crystals(write(tmp_path, "a.xyz", text))


def test_a_molecule_in_a_box(tmp_path):
    path = write(tmp_path, "h2.xyz", "2\nhydrogen\nH 0 0 0\nH 0 0 0.74\n")
    with pytest.raises(CrystalError, match=r"h2.xyz: it has no periodicity.*box=10"):
        read_crystals(path)
    (boxed,) = read_crystals(path, box=10)
    assert boxed.volume == pytest.approx(20 * 20 * 20.74)


def record(id, **change):
    return json.dumps(
        {"id": id, "lattice": (np.eye(3) * 4).tolist(), "z": [11], "frac": [[0, 0, 0]], **change}
    )


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_json_lines(tmp_path, ending):
    text = record("mp-1", k_vrh=3, split="test") + "\n\n" + record("mp-2", k_vrh=None) + "\n"
    path = tmp_path / f"set{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    one, two = read_crystals(path)
    assert (one.id, one.properties) == ("mp-1", {"k_vrh": 3.0})
    assert (two.id, two.properties) == ("mp-2", {})


def test_a_bad_line_does_not_cost_the_others(tmp_path):
    lines = [
        record("mp-1"),
        record("mp-2", z=[0]),
        '{"id": "mp-3", ',
        "[1, 2]",
        record("mp-5", frac=None),
        record("mp-6", lattice=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]),
        record("mp-7", frac=[[0, 0, float("nan")]]),
        json.dumps({"lattice": (np.eye(3) * 4).tolist(), "z": [11], "frac": [[0, 0, 0]]}),
    ]
    path = write(tmp_path, "set.jsonl", "\n".join(lines))
    outcomes = list(iterate_crystals(path))
    assert [getattr(o, "id", None) for o in outcomes] == ["mp-1", *[None] * 6, "set:7"]
    assert str(outcomes[1]) == (
        f"{path}, line 2, crystal 'mp-2': site 0 has atomic number 0: elements are 1 to 118"
    )
    assert str(outcomes[2]).startswith(f"{path}, line 3: not valid JSON")
    assert "line 4: a record with lattice" in str(outcomes[3])
    assert "line 5, crystal 'mp-5': the record has no frac" in str(outcomes[4])
    assert "line 6, crystal 'mp-6': the cell has no volume" in str(outcomes[5])
    assert "line 7, crystal 'mp-7': site 0 (Na) has no finite position" in str(outcomes[6])


def test_damaged_and_missing_files(tmp_path):
    good = gzip.compress("\n".join(record(f"mp-{i}") for i in range(2000)).encode())
    files = {
        "cut.jsonl.gz": good[: len(good) // 2],
        "no.jsonl.gz": b"this is no gzip",
        "binary.jsonl": bytes(range(256)),
        "empty.jsonl": b"",
        "empty.xyz": b"",
        "empty.cif.gz": gzip.compress(b""),
        "POSCAR": b"",
        "POSCAR.short": b"salt\n1.0\n4 0 0\n0 4 0\n",
        "notes.txt": b"nothing to see here\n" * 5,
        "unknown.qqq": b"nothing",
        "broken.json": b"{",
        "empty.cfg": b"",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        outcomes = list(iterate_crystals(path))
        assert isinstance(outcomes[-1], CrystalError), name
        assert str(outcomes[-1]).startswith(str(path)), name
        with pytest.raises(CrystalError):
            read_crystals(path)
    assert "is damaged" in str(list(iterate_crystals(tmp_path / "cut.jsonl.gz"))[-1])
    assert "format not recognised" in str(next(iterate_crystals(tmp_path / "unknown.qqq")))
    for missing in ("nowhere.cif", "nowhere.jsonl.gz", "nowhere/POSCAR", "nowhere.traj"):
        with pytest.raises(CrystalError, match=r"nowhere.*can't be read \(No such file"):
            read_crystals(tmp_path / missing)
    with pytest.raises(CrystalError, match="can't be read"):
        read_crystals(tmp_path)


def test_a_poscar_names_its_bad_site(tmp_path):
    text = "salt\n1.0\n4 0 0\n0 4 0\n0 0 4\n{}\n1 1\nDirect\n0 0 0\n{}\n"
    with pytest.raises(CrystalError, match=r"POSCAR: .*Qq"):
        read_crystals(write(tmp_path, "POSCAR", text.format("Na Qq", "0.5 0.5 0.5")))
    with pytest.raises(CrystalError, match=r"POSCAR: sites 0 \(Na\) and 1 \(Cl\) overlap"):
        read_crystals(write(tmp_path, "POSCAR", text.format("Na Cl", "1 1 0.001")))


SALT_FRAME = """2
Lattice="5.6 0 0 0 5.6 0 0 0 5.6" Properties=species:S:1:pos:R:3{more}
{first}
Cl 2.8 0 0
"""


@pytest.mark.parametrize(
    ("more", "first", "message"),
    [
        ("", "Na 0 0 1_5", "site 0 has no position: '1_5' is not a number"),
        ("", "Na 0 0 0 7", "site 0 has 5 values for 4 columns: 'Na 0 0 0 7'"),
        (":charge:R", "Na 0 0 0", "Properties has to be name:kind:columns"),
        (":charge:R:1", "Na 0 0 0", "site 0 has 4 values for 5 columns"),
        ("", "NH4 0 0 0", "site 0 is 'NH4', which is not an element"),
    ],
)
def test_rows_of_an_extended_xyz_are_read_as_announced(tmp_path, more, first, message):
    with pytest.raises(CrystalError, match=message):
        read_crystals(write(tmp_path, "a.xyz", SALT_FRAME.format(more=more, first=first)))


def test_a_lattice_of_eight_numbers(tmp_path):
    text = SALT_FRAME.format(more="", first="Na 0 0 0").replace(' 5.6"', '"')
    with pytest.raises(CrystalError, match="Lattice has to be nine numbers"):
        read_crystals(write(tmp_path, "a.xyz", text))


def test_what_an_extended_xyz_says_stays_as_it_is_written(tmp_path):
    more = " id=1e5 gap=1_5 energy=-6.5 k_vrh=007 name=salt"
    text = (
        SALT_FRAME.format(more=more, first="D 0 0 0").encode()
        + b"1\nStr\xf6m Lattice='4 0 0 0 4 0 0 0 4'\nFE 0 0 0"
    )
    (tmp_path / "a.xyz").write_bytes(b"\xef\xbb\xbf" + text)
    salt, iron = read_crystals(tmp_path / "a.xyz")
    assert (salt.id, iron.id) == ("1e5", "a:1")
    assert salt.properties == {"energy": -6.5, "k_vrh": 7.0}  # 1_5 is not a number
    assert salt.z.tolist() == [1, 17]
    assert iron.z.tolist() == [26]


def test_columns_in_another_order(tmp_path):
    text = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=pos:R:3:tag:S:1:species:S:1\n1 2 3 a_b Fe\n'
    (crystal,) = read_crystals(write(tmp_path, "a.xyz", text))
    assert crystal.positions.tolist() == [[1, 2, 3]]


def test_json_files_of_other_programs(tmp_path):
    jarvis = {
        "lattice_mat": (np.eye(3) * 4).tolist(),
        "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "elements": ["Cs", "Cl"],
        "cartesian": "False",
    }
    pymatgen = {
        "lattice": {"matrix": jarvis["lattice_mat"]},
        "sites": [
            {"species": [{"element": element, "occu": 1}], "abc": place}
            for element, place in zip(jarvis["elements"], jarvis["coords"], strict=True)
        ],
    }
    (one,) = read_crystals(write(tmp_path, "one.json", json.dumps(pymatgen)))
    assert (one.id, one.formula) == ("one", "ClCs")
    outcomes = list(iterate_crystals(write(tmp_path, "many.json", json.dumps([jarvis, {"a": 1}, pymatgen]))))
    assert [getattr(o, "id", None) for o in outcomes] == ["many:0", None, "many:2"]
    np.testing.assert_allclose(outcomes[0].positions, one.positions)
    assert "many.json, entry 1: a structure is wanted" in str(outcomes[1])


def test_the_content_of_a_file_without_a_known_name_counts(tmp_path):
    (crystal,) = read_crystals(write(tmp_path, "salt.mcif", cif()))
    assert len(crystal) == 8
    (crystal,) = read_crystals(write(tmp_path, "salt.txt", cif()))
    assert len(crystal) == 8


def test_frames_are_read_one_at_a_time(tmp_path):
    from ase.io import write as ase_write

    frames = [named("NaCl").to_ase() for _ in range(3)]
    text = "".join(FRAME.format(n=n) for n in range(3))
    ase_write(tmp_path / "a.traj", frames)
    for file in (write(tmp_path, "a.xyz", text), tmp_path / "a.traj"):
        outcomes = iterate_crystals(file)
        assert isinstance(next(outcomes), Crystal)
        outcomes.close()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (cif().replace("_a 5.64(1)", "_a 5,64"), "_cell_length_a is '5,64', which is not a number"),
        (cif(["Na1 Na 0 0 1/2", "Cl1 Cl .5 .5 .5"]), "site Na1 has no position: '1/2' is not a number"),
        (cif() + "_cell_length_b 7.5\n", "_cell_length_b is given twice, with different values"),
        (
            cif(symmetry="_space_group_IT_number 225").replace("_c 5.64", "_c 6.64"),
            "does not have the symmetry of F m -3 m",
        ),
        (
            cif(symmetry="loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+1/2,y+1/2,z\nx+1/2,y,z+1/2"),
            "the 3 listed operations are not a group",
        ),
        (
            cif([*SALT_SITES, "Na2 Na 0 0 0.01"], symmetry=""),
            "sites Na1 and Na2 are at one position, or less than 0.1 Å apart",
        ),
        (cif(symmetry="_space_group_symop_ssg_operation_algebraic x1,x2,x3,x4"), "a modulated structure"),
        (cif(symmetry=FM3M + "\n_chemical_formula_sum 'Na Cl2'"), "states the formula Cl2Na"),
        (cif().replace(" 0.5 0.5 0.5", " 0.5 0.5 0.5 'x"), "line 19: unterminated 'string'"),
        (cif(symmetry="_symmetry_Int_Tables_number F-43m"), "the number of the space group is 'F-43m'"),
        (cif(["Si1 Si 0 0 0"], "_space_group_IT_number 227"), "may be F d -3 m:1 or F d -3 m:2"),
    ],
)
def test_cifs_that_contradict_themselves(tmp_path, block, message):
    with pytest.raises(CrystalError, match=message):
        read_crystals(write(tmp_path, "a.cif", block))


@pytest.mark.parametrize(
    "more",
    ["_chemical_formula_sum 'Si'\n_cell_formula_units_Z 8", "_symmetry_space_group_name_H-M 'F d -3 m S'"],
)
def test_what_settles_the_origin(tmp_path, more):
    text = cif(["Si1 Si 0 0 0"], f"_space_group_IT_number 227\n{more}")
    (crystal,) = read_crystals(write(tmp_path, "a.cif", text))
    assert len(crystal) == 8


def test_tags_with_dots_and_values_that_are_missing(tmp_path):
    text = cif(symmetry="_space_group.IT_number 225\n_chemical_formula_weight\n_space_group.name_H-M_alt ?")
    text = text.replace("_cell_length_", "_cell.length_").replace("_atom_site_", "_atom_site.")
    (crystal,) = read_crystals(write(tmp_path, "a.cif", text))
    assert len(crystal) == 8


def test_cartesian_sites(tmp_path):
    text = cif(["Na1 Na 0 0 0", "Cl1 Cl 2.82 2.82 2.82"], symmetry=FM3M).replace("fract", "Cartn")
    (crystal,) = read_crystals(write(tmp_path, "a.cif", text))
    np.testing.assert_allclose(environments(crystal), environments(named("NaCl")))


def test_odd_but_legal_cifs_are_read_with_a_line(tmp_path, caplog):
    listed = "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-x,-y,-z\n"
    (crystal,) = read_crystals(write(tmp_path, "a.cif", cif(symmetry=f"{FM3M}\n{listed}")))
    assert len(crystal) == 2
    assert (
        "a.cif, block 'salt': 2 operations are listed, but its space group (F m -3 m) has 192" in caplog.text
    )
    caplog.clear()
    read_crystals(write(tmp_path, "b.cif", cif(symmetry=f"{FM3M}\n_chemical_formula_sum 'H4 Na Cl'")))
    assert "the formula has more hydrogen than the listed sites" in caplog.text
    caplog.clear()
    read_crystals(write(tmp_path, "c.cif", cif([*SALT_SITES, "Na2 Na 0.5 0.5 0"])))
    assert "sites Na1 and Na2 are at one position" in caplog.text


def test_a_block_without_atoms_is_no_crystal(tmp_path):
    text = "data_reflections\n_cell_length_a 5\n" + cif() + "data_bad\n_cell_length_a 5\n_cell_length_a 6\n"
    outcomes = list(iterate_crystals(write(tmp_path, "a.cif", text)))
    assert [type(outcome) for outcome in outcomes] == [Crystal, CrystalError]


def test_ids_of_files(tmp_path):
    from potnet.crystals import unique_id
    from potnet.crystals.reading.names import file_id

    names = [
        "Si.cif",
        "Si.vasp",
        "Si.cif.gz",
        "POSCAR",
        "POSCAR.1",
        "CONTCAR.relaxed",
        "POSCAR.vasp",
        "a.b.cif",
    ]
    folder = tmp_path.name
    expected = [
        "Si",
        "Si",
        "Si",
        *(f"{folder}/{x}" for x in ("POSCAR", "POSCAR.1", "CONTCAR.relaxed", "POSCAR")),
    ]
    assert [file_id(tmp_path / name) for name in names] == [*expected, "a.b"]
    taken: dict[str, Path | None] = {}
    for name in (*names, *names):
        taken[unique_id(file_id(tmp_path / name), taken, tmp_path / name)] = tmp_path / name
    assert len(taken) == 2 * len(names)
    assert {"Si", "Si.vasp", "Si.cif.gz", f"{folder}/POSCAR.1"} <= set(taken)
    known = {"mp-1": Path("a/x.jsonl"), "Si": Path("a/Si.cif"), "run:3": Path("a/run.extxyz"), "0": None}
    assert unique_id("mp-2", known, Path("a/set.jsonl")) == "mp-2"
    assert unique_id("mp-1", known, Path("a/set.jsonl")) == "set.jsonl/mp-1"
    assert unique_id("mp-1", known, Path("a/x.jsonl")) == "a/mp-1"
    assert unique_id("Si", known, Path("b/Si.cif")) == "b/Si"
    assert unique_id("run:3", known, Path("a/run.xyz")) == "run.xyz:3"
    assert unique_id("0", known) == "0 (2)"


def test_json_lines_with_a_structure_in_a_column(tmp_path):
    bad = cif(["Na1 Na 0 0 0 0.5"], columns="_atom_site_occupancy")
    rows = [
        {"jid": "007", "cif": cif(), "k_vrh": 24, "stable": True},
        {"cif": cif(symmetry="")},
        {"cif": bad},
    ]
    path = write(tmp_path, "set.jsonl", "\n".join(map(json.dumps, rows)))
    one, two, three = iterate_crystals(path)
    assert (one.id, len(one), one.properties) == ("007", 8, {"k_vrh": 24.0})
    assert (two.id, len(two)) == ("set:1", 2)
    assert "line 3: site Na1 (Na) is partly occupied (0.5): order it" in str(three)
