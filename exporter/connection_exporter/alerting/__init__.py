"""Alerts that go to Alertmanager directly, within milliseconds and independently of Prometheus."""
