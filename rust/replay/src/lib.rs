//! A lock-free trajectory buffer with exact truncated-geometric future-goal sampling.
