"""Arithmetic without Spark: arrays in, arrays out."""
