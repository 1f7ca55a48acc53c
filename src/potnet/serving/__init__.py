"""The local page of `potnet serve`: what it shows (`answer`), and how (`page`, a script of Streamlit)."""
