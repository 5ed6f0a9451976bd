"""What type checkers must see. Never run: pyright checks these files with the engine, and fails on an unused ignore."""
