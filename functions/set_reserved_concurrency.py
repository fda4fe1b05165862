"""Set a function's reserved concurrency as planned: leased, guarded, compare-and-set."""

from oncall.levers import RESERVED_CONCURRENCY
from oncall.step import change_step

handler = change_step(RESERVED_CONCURRENCY)
