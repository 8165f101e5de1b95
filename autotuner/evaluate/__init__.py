"""How good a candidate is: one question, answered by measuring, simulating or predicting."""
