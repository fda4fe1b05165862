"""What runs on a laptop and never ships: the embedded AWS, fake Slack and PagerDuty."""
