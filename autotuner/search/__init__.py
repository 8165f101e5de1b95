"""Which launch next: searchers propose, the loop has them evaluated and tells them the outcome."""
