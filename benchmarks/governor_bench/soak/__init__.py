"""Hours of churn: does anything grow, leak or get later?"""
