"""A run on disk: its experiment, trials and environment, in a versioned format."""
