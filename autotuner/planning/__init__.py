"""Questions asked of the predictor: which layout, how many GPUs, prefill and decode together or apart, at what cost."""
