"""Service: what each request has had of the engine, and what it is expected to need still."""
