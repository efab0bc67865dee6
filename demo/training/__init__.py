"""How the demo's models are trained: scenes, their pictures, and the stages of `python -m demo.train`."""
