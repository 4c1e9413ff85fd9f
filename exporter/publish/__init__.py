"""Owns what the world sees: metrics, JSON, events and the page. Reads the board, and never a service."""
