"""Every example of docs/lattice.md, one after the other, and the table of constants beside them."""

import re
from pathlib import Path

from test_lattice_madelung import MADELUNG

PAGE = (Path(__file__).parents[3] / "docs" / "lattice.md").read_text(encoding="utf-8")


def test_examples_run(capsys):
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 8
    for block in blocks:
        exec(compile(block, "docs/lattice.md", "exec"), names)
    assert "Madelung constant 1.747564594" in capsys.readouterr().out
    for row, constant in zip(("NaCl", "CsCl", "zinc blende"), names["constants"].tolist(), strict=True):
        assert abs(constant - MADELUNG[row]) < 2e-12
        assert f"| {row} | {constant:.11f} | {MADELUNG[row]:.11f} |" in PAGE


def test_pictures_exist():
    for picture in re.findall(r"\]\((images/.*?)\)", PAGE):
        assert (Path(__file__).parents[3] / "docs" / picture).is_file()
