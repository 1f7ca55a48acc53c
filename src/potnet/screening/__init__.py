"""Screening: the pieces of a source, the work on one, and the folder that holds what is found."""
