"""`runbook`: on-call's command line."""
