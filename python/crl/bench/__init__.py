"""What `crl bench buffer` and `benches/bench_buffer.py` measure: workloads, samplers, and how they take turns."""
