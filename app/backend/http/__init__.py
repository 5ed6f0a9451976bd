"""The demo backend over HTTP: requests, responses and streams."""
