"""The traffic sent to a server: scenarios, arrivals, prompts."""
