"""The way in for requests: each is checked, recorded and published before its caller hears that it is accepted."""
