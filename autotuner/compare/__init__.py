"""Runs against a baseline: what was changed, which figures moved beyond noise, and the gate of a pipeline."""
