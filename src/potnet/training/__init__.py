"""Training: the LightningModule, its schedule and callbacks, checkpoints, the folder of a run.

Nothing is imported here: `module` and `callbacks` need Lightning, `predictor` and `checkpoint` do not.
"""
