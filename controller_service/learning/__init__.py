"""Predictors that learn, from samples to a model that is trusted and watched.

======================= ========================================================================
:mod:`.samples`         measured steps as columns, from logs and profiles
:mod:`.regimes`         which steps are alike, and bounded buckets of them
:mod:`.model`           what every fitted model can do
:mod:`.families`        how each kind of model is fitted, stored and loaded
:mod:`.artifact`        a model on disk: files, manifest, hashes; refused when anything disagrees
:mod:`.evaluate`        errors by regime: of steps, of their 90th percentile, of externalities
:mod:`.promotion`       whether a candidate may replace what predicts now
:mod:`.fit`             all of it in one go, from logs to a folder
======================= ========================================================================

Nothing here runs between a snapshot and its decision.
"""
