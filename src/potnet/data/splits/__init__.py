"""Splits: which crystals train, validate and test."""
