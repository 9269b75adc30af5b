"""Evaluations: policies against each other over loads, targets and seeds, on simulated or real
engines, into one report with plots and a document."""
