"""Renders a run's results as tables, Markdown, CSV, JSON and plots; nothing here prints."""
