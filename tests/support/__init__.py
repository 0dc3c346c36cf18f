"""What the tests stand on: servers to start, conditions to wait for."""
