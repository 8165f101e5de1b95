"""Trials as jobs of Slurm: its commands, the job's own side, its states, and what a killed run leaves."""
