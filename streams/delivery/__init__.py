"""The stage wrapper: it takes every delivery to one durable outcome, and what it needs for that."""
