"""How long a step takes, behind one interface (:class:`.base.StepLatencyPredictor`).

=========== ====================================================================================
published   TAPER's: plain least squares on the last 200 steps, refitted every 600 s
constant    TAPER's ablation: every row costs the same share of a step
linear      published's shape, refitted online, with a memory for rare regimes and a prior; takes
            models (:mod:`.learned`)
boosted     linear until a model of this family, fitted in the background, does better
extra_trees likewise
measured    likewise
corrected-  before any of them: its predictions follow what was measured since (:mod:`.corrected`)
=========== ====================================================================================

To add one: write a module here and name it in :mod:`.registry`. Families of models have a home of
their own: :mod:`controller_service.learning.families`.
"""
