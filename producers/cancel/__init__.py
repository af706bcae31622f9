"""The way to withdraw a job."""
