"""autotune: the engine, flags and load that serve a model best within latency targets."""

__version__ = "0.1.0"
