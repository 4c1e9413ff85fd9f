"""What the exporter costs and how fast it is, beside its peers, measured in one run: `make bench`."""
