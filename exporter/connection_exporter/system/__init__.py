"""The process itself: threads, clock, signals, descriptors and the garbage collector."""
