"""What users ask of an engine, and the report on what they got."""
