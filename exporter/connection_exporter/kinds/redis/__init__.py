"""Kind redis: one held connection to Redis or Valkey."""
