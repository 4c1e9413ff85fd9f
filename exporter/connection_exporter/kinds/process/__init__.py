"""Kind process: a process on this machine, held by a pidfd."""
