"""Make tables and plots of runs: `potnet report --help`."""

from potnet.runs.report.command import main

if __name__ == "__main__":
    main()
