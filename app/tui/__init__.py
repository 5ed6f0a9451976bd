"""The terminal interface: screens and widgets that show the store's watches and call its methods.

Nothing here knows SQL or the inside of the sync engine. Importing this package alone does not import Textual.
"""
