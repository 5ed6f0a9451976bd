"""What the user may choose: settings, keys and appearance.

Owns their sources, names and checks. Must not know who uses them.
"""
