"""``governor eval laps-sd``: the order of service, against what others have and what is possible."""
