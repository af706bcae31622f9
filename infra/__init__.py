"""The ground of the code (settings, Postgres, errors) and its top (commands, API, local stack)."""
