"""How trials run: one at a time in this process, or several side by side on disjoint GPUs."""
