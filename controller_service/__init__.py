"""The controller: decides, beside the engine, what each scheduler step runs.

============== ===============================================================================
``state``      one snapshot as numpy columns
``ledger``     slack: what each request was promised, has had, can spare
``predictors`` how long a step takes
``policies``   which branches advance; one file a policy
``orders``     standing orders: what the engine does when a decision is late
``session``    one engine: decide, then learn from what it reported
``controller`` messages in, replies out, for all engines; no socket and no clock
``server``     the ROUTER socket and the loop around the controller
``observe``    statistics, Prometheus, the HTTP side
``cli``        the ``governor`` command
============== ===============================================================================

It needs no torch and no SGLang; everything that decides is a pure function of
:class:`~controller_service.state.StepState`, so a simulator can run the very same code.
"""
