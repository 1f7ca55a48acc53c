"""Loggers of training: W&B, TensorBoard, CSV."""
