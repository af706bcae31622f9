"""The way to withdraw a job over HTTP."""
