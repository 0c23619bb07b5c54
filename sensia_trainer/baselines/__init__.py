"""What sense adaptation is compared with."""
