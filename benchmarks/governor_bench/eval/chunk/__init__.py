"""The evaluation of prefill budgets: how many prompt tokens a step prefills, and whose first."""
