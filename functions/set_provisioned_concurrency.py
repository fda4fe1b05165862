"""Set an alias's provisioned concurrency as planned: leased, guarded, compare-and-set."""

from oncall.levers import PROVISIONED_CONCURRENCY
from oncall.step import change_step

handler = change_step(PROVISIONED_CONCURRENCY)
