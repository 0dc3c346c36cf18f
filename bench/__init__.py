"""What a call costs: the gateway against bare relays on the same server stack, measured in one run."""
