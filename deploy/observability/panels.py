"""What the dashboard shows, row by row."""

from deploy.observability.machinery import CLUSTER, DRAIN, PROCESS
from deploy.observability.traffic import CALLS, CONNECTIONS, OVERVIEW
from deploy.observability.trust import TRUST

ROWS = (OVERVIEW, CALLS, CONNECTIONS, CLUSTER, TRUST, PROCESS, DRAIN)
