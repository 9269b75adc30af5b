"""Speculation: what drafts are worth and what they cost.

================ =================================================================
:mod:`.drafting` what a policy is given: an engine's choices, chances and costs
:mod:`.estimator` chance of acceptance of each request, from few observations
:mod:`.matches`  chance that a draft starts right, where drafts are looked up
:mod:`.trees`    what the nodes of the best draft tree of a request are worth
:mod:`.cost`     what a draft step costs beside the step that verifies
:mod:`.session`  keeps all of it for one engine
================ =================================================================
"""
