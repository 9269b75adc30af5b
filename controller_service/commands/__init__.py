"""Subcommands of ``governor``, one file each; see :mod:`controller_service.cli`."""
