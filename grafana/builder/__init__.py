"""Build the Grafana dashboards as plain dicts; this package reads no files and writes none."""
