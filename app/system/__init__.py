"""What lies between todo-tui and the operating system: terminal, editor, private files, logs, texts for display.

Must not know lists and to-dos.
"""
