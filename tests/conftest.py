"""What the tests of every layer need."""

import signal

# A shell that puts the tests into the background has them ignore Ctrl-C, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
