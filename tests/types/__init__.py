"""What type checkers see of the public API: `make lint` has mypy and basedpyright check it.

Nothing here is imported or run. A `type: ignore` marks a mistake that both have to find.
"""
