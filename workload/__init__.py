"""The pilot system that the runbooks protect, and its load generator."""
