"""What is made before a router serves: the shipped encoder and demo router.

Each module is a command that rebuilds what it ships.
"""

__all__: list[str] = []
