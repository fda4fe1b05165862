"""Set the back-pressure parameter as planned: leased, guarded, compare-and-set."""

from oncall.levers import BACK_PRESSURE
from oncall.step import change_step

handler = change_step(BACK_PRESSURE)
