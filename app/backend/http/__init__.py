"""The demo backend over HTTP: requests, answers and streams."""
