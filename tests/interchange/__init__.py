"""Files that go between this engine and PowerSync's own core extension, in both directions."""
