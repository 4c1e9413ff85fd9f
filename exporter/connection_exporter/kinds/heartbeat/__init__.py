"""Kind heartbeat: a service that calls the exporter while all is well, such as a cron job or a backup."""
