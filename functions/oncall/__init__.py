"""What the steps of every runbook share: the incident's record, guards, changes and contracts."""
