"""What is answered? HTTP, live state, quotes; the region store owns the Redis keys and payloads."""
