"""How long a step takes, behind one interface (:class:`.base.StepLatencyPredictor`).

========== =====================================================================================
published  TAPER's: plain least squares on the last 200 steps, refitted every 600 s
linear     the same shape, refitted online, with a memory for rare regimes and a prior
boosted    the linear one plus LightGBM on its residual, compiled into a monotone table
========== =====================================================================================

To add one: write a module here and name it in :mod:`.registry`.
"""
