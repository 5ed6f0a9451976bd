"""A model service, a model of what a client must show, and the real client between the two."""
