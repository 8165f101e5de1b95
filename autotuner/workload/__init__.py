"""What is asked of a server: scenarios, arrivals, prompts."""
