"""Model classes for SGLang's registry (``SGLANG_EXTERNAL_MODEL_PACKAGE``)."""
