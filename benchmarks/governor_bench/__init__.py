"""Load client, demo, checks and benches: what the README's figures are made with."""
