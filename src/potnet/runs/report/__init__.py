"""Tables, plots and a page from the folders of runs: `potnet report --help`.

`collect` finds the runs, `planned` says which jobs of a sweep were never begun, `rows` averages over
seeds and compares rows, and `markdown`, `plots` and `html` write what people read. Only the folders of
runs are read, so a report can be made anywhere, at any time, also while the sweep is running.
"""

from potnet.runs.report.collect import Run, collect
from potnet.runs.report.rows import Comparison, Row, Section, sections

__all__ = ["Comparison", "Row", "Run", "Section", "collect", "sections"]
