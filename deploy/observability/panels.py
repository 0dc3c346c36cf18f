"""What the dashboard shows, row by row."""

from deploy.observability.machinery import CLUSTER, DRAIN, PROCESS
from deploy.observability.traffic import CALLS, CONNECTIONS, OVERVIEW

ROWS = (OVERVIEW, CALLS, CONNECTIONS, CLUSTER, PROCESS, DRAIN)
