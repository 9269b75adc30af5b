"""The models of a controller: loaded from folders, judged, installed, taken back.

Loading and judging take time and run where the caller is, an HTTP thread or the start of the
controller; what touches an engine's predictor is handed to the loop.

================== =============================================================================
:mod:`.loading`    a model from a folder, and the engine that it was fitted to
:mod:`.desk`       everything about models that outlives an engine
:mod:`.errors`     why a model was not taken
:mod:`.promoting`  a candidate against what predicts now
:mod:`.status`     what an engine predicts by, for people
================== =============================================================================
"""
