"""The documents that are generated: a page for each runbook, and what every role may do.

`make pages` writes them; a contract test fails when one is not what would be written.
"""
