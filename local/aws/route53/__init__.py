"""Route 53 and routing controls of the embedded AWS: rules, state and the data plane.

`changes`, `answers`, `health` and `safety_rules` decide and are pure; `zones`, `checkers` and
`routing_controls` hold state; `data_plane` is the extension that probes and answers DNS. The
bridges `route53_*` and `recovery_control` put them behind the API.
"""
