"""Seeded fuzzing of everything that reads what strangers made: ``python -m fuzz --seconds 600``.

A target turns a number into one hostile input and reads it. Whatever is raised but a `ChestXrayError`,
takes longer or takes more memory than the target allows, is a finding, and the number repeats it.
"""
