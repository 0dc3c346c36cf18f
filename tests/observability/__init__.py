"""What watches the gateway is watched: alerts, dashboard and their configuration, against the real `/metrics`."""
