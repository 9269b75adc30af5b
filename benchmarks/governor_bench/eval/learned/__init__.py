"""Predictors against the truth: errors of steps and of externalities on regimes that were held out,
recovery after a change, and the cost of asking."""
