"""The result of a load test of one server: as data, tables, files and plots."""
