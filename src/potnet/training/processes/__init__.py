"""Training on several devices: one process each."""
