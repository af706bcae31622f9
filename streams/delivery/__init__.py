"""The stage wrapper takes every delivery to one durable outcome."""
