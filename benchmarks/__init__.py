"""What a validation costs, against the bare signature check of cryptography. Started by scripts/bench."""
