"""The intake checks, records and publishes each request before its caller hears of the acceptance."""
