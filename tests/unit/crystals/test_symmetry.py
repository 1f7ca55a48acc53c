import numpy as np
import pytest

from potnet.crystals import CrystalError
from potnet.crystals.reading.symmetry import (
    Operations,
    by_group,
    listed,
    order_of,
    parse_operation,
    settings_of,
)


@pytest.mark.parametrize(
    ("text", "rotation", "translation"),
    [
        ("x,y,z", np.eye(3), [0, 0, 0]),
        (" -X , Y+1/2 , 1/2-Z ", np.diag([-1, 1, -1]), [0, 0.5, 0.5]),
        ("+x,+y,+z;", np.eye(3), [0, 0, 0]),
        ("x+2z,y,-z", [[1, 0, 2], [0, 1, 0], [0, 0, -1]], [0, 0, 0]),
        ("x+2*z,y,-z", [[1, 0, 2], [0, 1, 0], [0, 0, -1]], [0, 0, 0]),
        ("-1/2x-3/2y,1/2x-1/2y,z", [[-0.5, -1.5, 0], [0.5, -0.5, 0], [0, 0, 1]], [0, 0, 0]),
        ("-x/2-3*y/2,0.5x-.5y,z", [[-0.5, -1.5, 0], [0.5, -0.5, 0], [0, 0, 1]], [0, 0, 0]),
        ("x+0.333,y+.6667,z-0.25", np.eye(3), [1 / 3, 2 / 3, -0.25]),
        ("x+1/5,y,z+0.2", np.eye(3), [0.2, 0, 0.2]),
        ("1/2+1/4+x,y,z", np.eye(3), [0.75, 0, 0]),
        ("-y,x-y,z+1/3", [[0, -1, 0], [1, -1, 0], [0, 0, 1]], [0, 0, 1 / 3]),
    ],
)
def test_operations(text, rotation, translation):
    found = parse_operation(text)
    np.testing.assert_allclose(found[0], rotation, atol=1e-12)
    np.testing.assert_allclose(found[1], translation, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "x,y",
        "x,y,z,+1",
        "x,",
        "",
        "x,y,x",
        "x,y,2z",
        "a,b,c",
        "1,2,3",
        "x y,z,z",
        "x,y,z+1/0",
        "x,,z",
        "x,y,--z",
    ],
)
def test_what_is_no_operation(text):
    with pytest.raises(CrystalError, match="is no symmetry operation"):
        parse_operation(text)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("P2(1)/c", "P 1 21/c 1"),
        ("P 2_1/c", "P 1 21/c 1"),
        ("p21/c", "P 1 21/c 1"),
        ("P_21/c", "P 1 21/c 1"),
        ("P 1 21/n 1", "P 1 21/n 1"),
        ("P 2(1)2(1)2(1)", "P 21 21 21"),
        ("F d -3 m Z", "F d -3 m:2"),
        ("F d -3 m S", "F d -3 m:1"),
        ("Fd-3mZ", "F d -3 m:2"),
        ("F d -3 m O1", "F d -3 m:1"),
        ("F d -3 m (origin choice 2)", "F d -3 m:2"),
        ("I 41/a m d :2", "I 41/a m d:2"),
        ("R -3 m H", "R -3 m:H"),
        ("R-3m:r", "R -3 m:R"),
        ("R -3 m R", "R -3 m:R"),
        ("P m -3 m :1", "P m -3 m"),
        ("P m -3 m (#221)", "P m -3 m"),
        ("P m 3 m", "P m -3 m"),
        ("F 4/m -3 2/m", "F m -3 m"),
        ("P 6_3/m 2/m 2/c", "P 63/m m c"),
        ("P 2_1/n 2_1/m 2_1/a", "P n m a"),
        ("C m c e", "C m c a"),
        ("P 1", "P 1"),
        ("P 2", "P 1 2 1"),
    ],
)
def test_spellings_of_names(name, setting):
    assert [group.xhm() for group in settings_of(name)] == [setting]


def test_names_that_leave_a_choice():
    assert [group.xhm() for group in settings_of("F d -3 m")] == ["F d -3 m:1", "F d -3 m:2"]
    assert [group.xhm() for group in settings_of("R -3 m")] == ["R -3 m:H", "R -3 m:R"]
    assert settings_of("Q 7") == ()


@pytest.mark.parametrize(
    ("name", "hall", "number", "message"),
    [
        ("Q 7", None, 225, "'Q 7' is not known, and no operations are listed"),
        ("P n m a", None, 225, "'P n m a' has number 62, but the file says 225"),
        (
            "P n m a",
            "-F 4 2 3",
            None,
            "the Hall symbol '-F 4 2 3' is F m -3 m, but the name 'P n m a' is P n m a",
        ),
        (None, "-F 4 2 3", 62, "'-F 4 2 3' has number 225, not 62"),
        (None, "nonsense", None, "'nonsense' cannot be read"),
        (None, None, 231, "there is no space group number 231"),
    ],
)
def test_contradictions(name, hall, number, message):
    with pytest.raises(CrystalError, match=message):
        by_group(name, hall, number)


def test_nothing_stated_is_the_identity():
    (only,) = by_group(None, None, None)
    np.testing.assert_array_equal(only.rotations, [np.eye(3)])
    assert order_of(None, None) is None
    assert order_of("F m -3 m", None) == order_of(None, 225) == 192


def test_a_list_that_is_no_group():
    cell = np.eye(3) * 4.0
    assert listed(("x,y,z", "-x,-y,-z")).problem(cell) is None
    assert listed(("x,y,z", "x+1/2,y+1/2,z", "-x,-y,-z", "1/2-x,1/2-y,-z")).problem(cell) is None
    assert "2 listed operations are not a group" in listed(("x,y,z", "y,z,x")).problem(cell)
    assert "not a group" in listed(("x,y,z", "x+1/3,y,z")).problem(cell)
    assert "not a group" in listed(("-x,-y,-z",)).problem(cell)


def test_a_cell_of_another_symmetry():
    (cubic,) = by_group("P m -3 m", None, None)
    assert cubic.problem(np.eye(3) * 4.0) is None
    assert cubic.problem(np.diag([4.0, 4.0, 4.01])) is None  # relaxed, not exactly cubic
    assert "the cell (4 4 5 90 90 90) does not have the symmetry of P m -3 m" in cubic.problem(
        np.diag([4.0, 4.0, 5.0])
    )


def test_magnetic_operations_times_centrings():
    found = listed(("x,y,z,+1", "-x,-y,-z,-1"), ("x,y,z,+1", "x,y,z+1/2,-1"), True)
    assert isinstance(found, Operations)
    assert len(found) == 4
    assert sorted(t[2] for t in found.translations) == [0, 0, 0.5, 0.5]


def test_operations_listed_twice_or_on_lines_of_one_value_count_once():
    assert len(listed(("x,y,z\n-x,-y,-z", "x,y,z", "x+1,y,z"))) == 2
