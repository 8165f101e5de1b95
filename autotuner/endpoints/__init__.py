"""Questions to a running server: which models it serves, at which route, one token, token ids, counters."""
