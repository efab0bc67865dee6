"""Training of the demo's models: scenes, how they are drawn, and the stages of `python -m training`.

This package is not part of the wheel.
"""
