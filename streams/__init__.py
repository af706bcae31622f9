"""Events in motion: what is known about jobs, the stage wrapper, and the Redis Streams transport for Faust."""
