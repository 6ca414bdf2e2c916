"""What Token Guard costs, against the bare signature check of cryptography. Started by scripts/bench."""
