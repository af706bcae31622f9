"""Events in motion: contracts, topics, the stage wrapper, and the Redis Streams transport for Faust."""
