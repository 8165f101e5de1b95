"""A simulated engine: an iteration-level scheduler on predicted step times, and a server in front of it."""
