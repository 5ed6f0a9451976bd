"""Proof under fire: client processes write and read registers while everything around them fails, and a verdict.

`python -m tests.fire` runs it, `python -m tests.fire.fuzz` feeds nonsense to whatever reads input, and
`python -m tests.fire.soak` looks for growth over hours. docs/reliability.md says what is proven and how.
"""
