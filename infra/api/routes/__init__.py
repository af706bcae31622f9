"""The routes of the API, a module for each kind of caller's wish."""
