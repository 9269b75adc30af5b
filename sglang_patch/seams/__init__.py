"""The only place that touches SGLang's internals: one small file a seam.

| file | SGLang's target | use |
|---|---|---|
| ``startup.py`` | ``ServerArgs.check_server_args``, ``Scheduler.init_request_dispatcher`` | refuse, self-check, connect |
| ``http.py`` | ``ORJSONRequest.json`` | refuse bad headers and misplaced fields before a stream begins |
| ``tokenizer.py`` | ``TokenizerManager.generate_request``, ``._create_tokenized_object`` | headers, check request fields, group samples |
| ``receiving.py`` | ``SchedulerRequestReceiver._pull_raw_reqs`` | plan the coming step, tell every rank |
| ``decoding.py`` | ``Scheduler.update_running_batch`` | park rows |
| ``speculation.py`` | ``SpeculativeAlgorithm.create_worker``, ``adaptive_unsupported_reason`` | length of drafts, caps of rows |
| ``prefilling.py`` | ``Scheduler.get_new_batch_prefill`` | how much is prefilled, whose prompts first |
| ``pausing.py`` | ``Scheduler.pause_generation`` | nothing of retracted rows outlives the weights |
| ``reporting.py`` | ``SchedulerMetricsReporter`` | parked rows count as running |
| ``running.py`` | ``Scheduler.run_batch``, ``.launch_batch_sample_if_needed``, ``.process_batch_result`` | snapshot, measure, return parked rows |

``catalogue.py`` lists them; ``hooks.py`` registers them and checks that they took; ``versions.py`` lists the versions of
SGLang that were checked, ``differences/`` what differs between them; ``batches.py`` and ``requests.py`` read and cut SGLang's batches.
"""  # noqa: E501
