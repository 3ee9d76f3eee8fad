"""One module per way of feeding a training process, each written as the documentation of its library recommends.

A module has `prepare(task)`, which writes its store from the triplets (again and again without harm, never on the
clock), and `batches(task)`, which yields (HR, input) pairs without end. It runs in a process of its own, in the
environment of its library, so it imports nothing but the standard library, NumPy, PyTorch and that library. `ours` is
the one that imports this project.
"""
