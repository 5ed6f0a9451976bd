"""For all tests: blocking calls on the event loop of the engine's own code are errors."""
