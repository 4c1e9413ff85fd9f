"""Monitoring: the supervisor, the loop of one service, its attempts and canaries, the board, and its subscribers."""
