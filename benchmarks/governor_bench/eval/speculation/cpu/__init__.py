"""Tier C: real SGLang that computes small trained models on the CPU."""
