"""``governor gpu``: everything that a real GPU is asked, in stages that are saved one by one.

====================== ==========================================================================
:mod:`.target`         the engine that is measured, and how large each stage is there
:mod:`.figures`        what each stage finds, as strict types
:mod:`.results`        one JSON file a stage; what is whole is not measured again
:mod:`.rig`            the servers, started when a stage first needs them, and shared by stages
:mod:`.stage`          what a stage is, and what it is given
:mod:`.pairs`          stages that compare a stock with a governed engine
:mod:`.run`            stage after stage within a budget; failures are noted, the rest goes on
:mod:`.archive`        the folder as one file, for hosts from which few files come back
:mod:`.intervals`      times between the tokens that users see
:mod:`.records`        the controller's records of a stretch of steps
:mod:`.traces`         torch's traces of a scheduler: reading, bounded
:mod:`.host_time`      whose the host's time is in a trace, and where it waits for the device; pure
:mod:`.workloads`      what the table of policies is served
:mod:`.sweep`          a sweep of ``governor profile`` over an engine of ours
:mod:`.stages`         the stages, one a file
:mod:`.report`         ``docs/results/gpu.md`` from saved files
:mod:`.sections`       the sections of that document, one for each stage
:mod:`.plots`          its plots
:mod:`.adopt`          a measured profile becomes data
====================== ==========================================================================
"""
