"""`python -m app`: the same as the command `todo-tui`. Owns nothing."""

from app.cli.main import main

if __name__ == "__main__":
    main()
