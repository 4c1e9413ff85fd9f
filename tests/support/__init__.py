"""What several tests share: servers that misbehave, clients, clocks, and readers of our own output."""
