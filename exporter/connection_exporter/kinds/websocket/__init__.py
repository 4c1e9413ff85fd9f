"""Kind websocket: one held connection, probed with a ping."""
