"""What flows? Topics, the messages on them, the way from Kafka into a region's Redis, and what happens to bad ones."""
