"""Closed form, no GPU: hardware, model shape, memory, step times."""
