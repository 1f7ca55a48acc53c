"""Make a report of a study in W&B: `potnet wandb_report --help`.

The panels are those that docs/wandb.md describes. The package wandb-workspaces writes the report; it is
imported when it is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, did_you_mean, entry_point, plain
from potnet.config.resolvers import secret

if TYPE_CHECKING:
    from omegaconf import DictConfig

LABELS = ("ablation", "model", "data", "target", "experiment")
"""Labels of a run that the rows of a study can be."""


@entry_point("wandb_report")
def main(config: DictConfig) -> None:
    """Make the report, and print its address."""
    settings = plain(config)
    draft = settings.pop("draft")
    key = secret("WANDB_API_KEY")
    if key is None:
        raise ConfigError(
            "W&B makes reports of runs that it has, so it needs WANDB_API_KEY; "
            "potnet report makes one from the folders of the runs"
        )
    os.environ["WANDB_API_KEY"] = key  # where wandb looks; it does not read .env
    report = study_report(**settings)
    try:
        report.save(draft=draft)
    except Exception as error:  # of the network, or of the server
        raise ConfigError(f"W&B refused the report: {' '.join(str(error).split())}") from error
    print(report.url)


def study_report(
    entity: str, project: str, group: str, target: str, by: str = "ablation", title: str | None = None
) -> Any:
    """The report of one study, not yet saved: a `wandb_workspaces.reports.v2.Report`.

    Args:
        entity: User or team.
        project: Of the runs.
        group: Of the runs.
        target: Key of the target whose errors are shown, such as "k_vrh".
        by: Label that the rows of the study differ in; runs that share it differ in their seed.
        title: None makes one.

    Raises:
        ConfigError: wandb-workspaces is not installed, or there is no such label.
    """
    if by not in LABELS:
        raise ConfigError(f"by={by}{did_you_mean(by, LABELS)}")
    try:
        import wandb_workspaces.reports.v2 as wr
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}: pip install wandb-workspaces") from error

    runs = wr.Runset(
        entity=entity,
        project=project,
        name=group,
        filters=f"Metric('group') == {group!r}",
        groupby=[f"config.labels.{by}"],
    )
    label = wr.Config(f"labels.{by}")
    spread: dict[str, Any] = {"groupby": label, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}

    def curve(name: str, heading: str, log: bool = False) -> Any:
        return wr.LinePlot(title=heading, x="epoch", y=[name], log_y=log, **spread)

    def bars(name: str, heading: str) -> Any:
        return wr.BarPlot(title=heading, metrics=[wr.SummaryMetric(name)], **spread)

    sections = {
        "Errors": (
            "Mean and standard deviation over seeds, in the unit that the target is learned in "
            "(`units` in the config of each run), of the best checkpoint.",
            [
                bars(f"test/{target}/mae", "test MAE"),
                bars(f"val/{target}/mae", "validation MAE"),
                wr.ScatterPlot(
                    title="does validation predict test?",
                    x=wr.SummaryMetric(f"val/{target}/mae"),
                    y=wr.SummaryMetric(f"test/{target}/mae"),
                ),
            ],
        ),
        "Learning": (
            "",
            [
                curve(f"val/{target}/mae", "validation MAE", log=True),
                curve(f"train/{target}/mae", "training MAE", log=True),
                curve("train/grad_norm", "norm of the gradient", log=True),
                curve("lr", "learning rate"),
            ],
        ),
        "Cost": (
            "",
            [
                curve("crystals_per_second", "crystals per second"),
                curve("memory_gib", "memory, GiB"),
                bars("seconds/total", "time of a run, s"),
                wr.ScatterPlot(
                    title="error against size",
                    x=wr.SummaryMetric("parameters"),
                    y=wr.SummaryMetric(f"test/{target}/mae"),
                ),
            ],
        ),
        "Where it errs": (
            "",
            [
                wr.MediaBrowser(title="parity", media_keys=["parity"]),
                wr.MediaBrowser(title="error by element", media_keys=["error_by_element"]),
                wr.WeavePanelSummaryTable(table_name="worst_test_crystals"),
            ],
        ),
        "What differs": ("", [wr.RunComparer(diff_only="split")]),
    }
    blocks: list[Any] = []
    for heading, (text, panels) in sections.items():
        blocks += [wr.H2(heading), *([wr.MarkdownBlock(text)] if text else [])]
        blocks.append(wr.PanelGrid(runsets=[runs], panels=panels))
    return wr.Report(
        entity=entity,
        project=project,
        title=title or f"{group}: {target} by {by}",
        description=f"Runs of the group {group}, compared by {by}.",
        width="fluid",
        blocks=blocks,
    )


if __name__ == "__main__":
    main()
