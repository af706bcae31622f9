"""The ground that the rest stands on, and the tools at its top: commands, API, local stack."""
