"""Static checks of what this project deploys: machines, template, roles, contracts and layers.

Every rule is a pure function from a parsed document to findings; reading files and running
other people's linters happens in `machines` and `template` alone. The tests in `tests/contract`
plant a flaw for each rule and expect the rule's name back.
"""
