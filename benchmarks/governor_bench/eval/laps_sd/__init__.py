"""The evaluation of the order of service: against what others have, and what is possible."""
