"""What a load test of one server came to: as a noun, as tables, as files, as pictures."""
