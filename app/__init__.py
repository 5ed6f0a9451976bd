"""todo-tui: the application. Owns settings, store, connector, interface, demo backend and command line."""
