"""What a run found, as tables, markdown, CSV, JSON and a picture; nothing here prints."""
