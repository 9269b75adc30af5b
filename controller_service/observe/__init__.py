"""What the controller tells people: statistics, Prometheus metrics, the HTTP side."""
