"""SLA profiling: measure prefill and decode workers, choose them under latency targets, and plan how many to run."""
