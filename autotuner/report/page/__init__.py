"""A run as one web page: a file that opens from disk and asks nobody for anything, or served live on loopback."""
