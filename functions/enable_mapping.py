"""Enable an event source mapping as planned: leased, guarded, compare-and-set."""

from oncall.levers import MAPPING_ENABLED
from oncall.step import change_step

handler = change_step(MAPPING_ENABLED)
