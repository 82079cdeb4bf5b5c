"""What `crl bench` and `benches/bench_buffer.py` measure: workloads, samplers, updates, and how they take turns."""
