"""The parts of a running exporter around the monitor: settings and reload, the file watcher, history and the log."""
