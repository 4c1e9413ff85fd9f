"""Kind postgresql: one held connection, probed with a query."""
