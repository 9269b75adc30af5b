"""``governor profile``: how long the steps of a live engine take, measured by driving it.

====================== ==========================================================================
:mod:`.point`          one thing to measure, and whether there is room for it; pure
:mod:`.plan`           which points to measure, coarse to fine; pure
:mod:`.costs`          how long a point is going to take, from what was measured so far; pure
:mod:`.steps`          which of the steps that the controller saw belong to a point; pure
:mod:`.engine`         the engine and its controller over HTTP: facts, load, steps, policy
:mod:`.prompts`        token ids of the rows
:mod:`.probe`          one point's requests: sent together, aborted together
:mod:`.pinning`        a batch that decodes taken through the engine's draft lengths
:mod:`.measure`        one point on the live engine; makes way for others
:mod:`.policy`         nobody is parked or drafts unasked meanwhile, and the policy comes back
:mod:`.points_file`    what was measured, on disk, so that a second run goes on
:mod:`.run`            the sweep: waits for others, keeps its share, stays within the budget
:mod:`.cells`          stretches of equal rows and drafts, each as one step time
:mod:`.nonnegative`    least squares for costs
:mod:`.surface`        step times over rows and context, fitted to measured cells; pure
:mod:`.draft_costs`    what drafting costs, fitted to batches that went through draft lengths; pure
:mod:`.build`          from measured steps to a portable ``StepProfile``; pure
:mod:`.samples_file`   measured steps as the samples that ``governor fit`` takes
:mod:`.finish`         the files that are left behind
:mod:`.report`         what is printed at the end
:mod:`.draft_report`   what is printed of drafting
====================== ==========================================================================
"""
