"""One module per case of feeding a training process, each written as its library's documentation recommends.

A module has `prepare(task)`, which writes its store from the triplets, and `batches(task)`, which yields (HR, input)
pairs forever. It runs in a separate process, in the environment of its library, so it imports only the standard
library, NumPy, PyTorch and that library. `ours` is the one that imports this project.
"""
