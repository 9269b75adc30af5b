"""Faults on purpose: does every request still end with the right tokens, and is nothing held up?"""
