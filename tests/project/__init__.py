"""The promises that files make: packaging, deployment, house rules."""
