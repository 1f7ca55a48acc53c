"""What a shell is told may stand in the place of the last word."""

from __future__ import annotations

import pytest

from potnet.cli import COMMANDS
from potnet.completion import SCRIPTS, candidates, main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trai"], ["train"]),
        (["data", "sh"], ["show"]),
        (["completion", ""], list(SCRIPTS)),
        (["train", "--cf"], ["--cfg"]),
        (["train", "target=g_v"], ["target=g_voigt", "target=g_vrh"]),
        (["train", "trainer.max_e"], ["trainer.max_epochs="]),
        (["train", "model=cgcnn", "model.wi"], ["model.width="]),
        (["train", "nonsense=1", "optimizer.learning_r"], ["optimizer.learning_rate="]),
        (["predict", "lev"], ["level="]),
        (["data", "show", "x"], []),
        (["nonsense", ""], []),
    ],
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert candidates(words) == expected


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["potnet completion", *words])
        return main(), *capsys.readouterr()

    assert run("--words", "") == (0, "".join(f"{name}\n" for name in COMMANDS), "")
    assert run("zsh") == (0, SCRIPTS["zsh"], "")
    status, _, error = run("bsh")
    assert status == 2
    assert "did you mean bash" in error
    assert run()[0] == 2
    assert "eval" in run("--help")[1]
