"""Set an event source mapping's maximum concurrency as planned: leased, guarded, compared."""

from oncall.levers import MAPPING_CONCURRENCY
from oncall.step import change_step

handler = change_step(MAPPING_CONCURRENCY)
