"""The page, a script that Streamlit runs again at each input. `potnet serve` starts it."""

from __future__ import annotations

import json
import os
from typing import Any

import streamlit as st

from potnet.crystals import CrystalError
from potnet.serving.answer import Answer, answer, picture, read_upload

# Environment variable with the settings, as JSON.
SETTINGS = "POTNET_SERVE"


@st.cache_resource(show_spinner="Loading the models ...")
def _predictor(models: Any, registry: str | None, device: str) -> Any:
    from potnet.predict import chosen_model

    return chosen_model(None, models, registry, device, ())[0]


def _values(found: Answer, level: float) -> None:
    for row in found.values:
        value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
        st.metric(row["property"], f"{value} {row['unit']}".strip())
        notes = []
        if row["lower"] is not None and row["upper"] is not None:
            notes.append(f"{level:.0%} interval {row['lower']:.4g} to {row['upper']:.4g} {row['unit']}")
        if row["spread"] is not None:
            notes.append(f"spread of the networks {row['spread']:.2g}")
        st.caption("; ".join(notes))
    for flag in found.flags:
        st.warning(flag)
    if not found.flags:
        st.success("Nothing speaks against these values: the crystal is like those in training.")


def _nearest(found: Answer) -> None:
    for title, rows in found.nearest.items():
        st.markdown(f"**Nearest known crystals** ({title}, of up to 1 000 training crystals)")
        st.table(rows)
        st.caption("A distance above 1 is more than 99 % of crystals of the training crystals' kind have.")


def main() -> None:
    """Show the page."""
    settings = json.loads(os.environ.get(SETTINGS, "{}"))
    level = float(settings.get("level", 0.9))
    st.set_page_config(page_title="potnet", layout="wide")
    st.title("Properties of a crystal")
    upload = st.file_uploader("CIF, POSCAR, extended XYZ, or another file with structures. It stays here.")
    if upload is None:
        return
    try:
        crystals, problems = read_upload(upload.name, upload.getvalue(), settings.get("box"))
    except CrystalError as error:
        crystals, problems = [], [str(error)]
    for problem in problems[:5]:
        st.error(problem)
    if not crystals:
        return
    number = 0
    if len(crystals) > 1:
        names = [crystal.id for crystal in crystals]
        number = st.selectbox("Structure", range(len(names)), format_func=lambda n: names[n]) or 0
    crystal = crystals[number]
    left, right = st.columns(2)
    with left:
        st.subheader(f"{crystal.formula}, {len(crystal)} atoms")
        st.plotly_chart(picture(crystal), key="structure")
    with right:
        try:
            predictor = _predictor(
                settings.get("models"), settings.get("registry"), settings.get("device", "auto")
            )
            found = answer(predictor, crystal, level)
        except ValueError as error:  # all errors that a user can mend
            st.error(str(error))
            return
        if found.problem:
            st.error(found.problem)
            return
        _values(found, level)
        _nearest(found)


if __name__ == "__main__":
    main()
