"""The folder of a run: what training writes, and what evaluation, prediction and reports read."""
