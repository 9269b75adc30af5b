"""Predictors that learn, from samples to a model that is trusted and watched.

======================= ========================================================================
:mod:`.samples`         measured steps as columns, from logs and profiles
:mod:`.regimes`         which steps are alike, and bounded buckets of them
:mod:`.model`           what every fitted model can do
:mod:`.families`        how each kind of model is fitted, stored and loaded
:mod:`.lengths`         how many tokens a request will still write
:mod:`.hints`           how far off lengths are that clients declare
:mod:`.acceptance`      how likely its draft tokens are to be accepted
:mod:`.manifest`        what a model on disk says of itself, sealed by a hash
:mod:`.artifact`        a model on disk: files and manifest; refused when anything disagrees
:mod:`.evaluate`        errors by regime: of steps, of their 90th percentile, of externalities
:mod:`.promotion`       whether a candidate may replace what predicts now
:mod:`.gather`          steps out of many logs into buckets, here or on a cluster
:mod:`.fit`             all of it in one go: split, fit, compare, fit again to everything
======================= ========================================================================

Nothing here runs between a snapshot and its decision.
"""
