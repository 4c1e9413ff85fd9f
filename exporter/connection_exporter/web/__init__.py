"""What is served over HTTP: metrics, JSON, events and the status page."""
