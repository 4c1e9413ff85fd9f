"""Kind http: requests over one kept-alive connection."""
