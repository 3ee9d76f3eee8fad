"""What `bench_gpu` runs: its parts, the processes that measure them, and the page of figures."""
