"""The way in over HTTP: a request is checked, recorded and published before its caller hears 202."""
