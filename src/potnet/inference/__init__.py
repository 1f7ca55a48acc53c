"""Trained models on new crystals."""
