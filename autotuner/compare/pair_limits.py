"""How many pairs of fresh launches a gate takes: fewer have no spread of their own, more cost more than they tell."""

MIN_PAIRS = 2
MAX_PAIRS = 5
