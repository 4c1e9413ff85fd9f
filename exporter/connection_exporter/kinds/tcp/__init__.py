"""Kind tcp: any server that speaks first or answers a line, over a held connection."""
