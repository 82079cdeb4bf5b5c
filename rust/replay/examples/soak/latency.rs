//! How long calls take: by the clock on the wall, and by that of the thread, which stops while others have the core.
#![allow(clippy::cast_precision_loss)] // To print: three digits of them.
use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// Buckets of an octave.
const PARTS: u64 = 16;

/// Durations in nanoseconds, counted in buckets of a sixteenth of an octave.
#[derive(Clone)]
pub struct Durations {
    buckets: Vec<u64>,
    max: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: vec![0; 61 * 16], max: 0 }
    }
}

impl Durations {
    fn record(&mut self, duration: Duration) {
        let n = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.max = self.max.max(n);
        let octave = u64::from(n.max(PARTS).ilog2()) - 4;
        let bucket = octave * PARTS + (n >> octave);
        self.buckets[usize::try_from(bucket).expect("a bucket")] += 1;
    }

    /// The duration, in microseconds, that this fraction of calls does not exceed: the upper end of its bucket.
    pub fn quantile(&self, fraction: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let mut left = (total as f64 * fraction).ceil();
        for (bucket, count) in (0_u64..).zip(&self.buckets) {
            left -= *count as f64;
            if left <= 0.0 {
                let octave = (bucket / PARTS).saturating_sub(1);
                return (((bucket - octave * PARTS + 1) << octave) as f64 / 1000.0).min(self.max as f64 / 1000.0);
            }
        }
        0.0
    }
}

impl AddAssign<&Self> for Durations {
    fn add_assign(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, others)| *mine += others);
        self.max = self.max.max(other.max);
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, high, max] = [0.5, 0.999, 1.0].map(|fraction| self.quantile(fraction));
        write!(f, "median {median:.1} µs, p99.9 {high:.1} µs, max {max:.1} µs")
    }
}

/// Both clocks of the same calls.
#[derive(Clone, Default)]
pub struct Latency {
    pub wall: Durations,
    pub own: Durations,
}

impl AddAssign<&Self> for Latency {
    fn add_assign(&mut self, other: &Self) {
        self.wall += &other.wall;
        self.own += &other.own;
    }
}

/// A call that is being timed.
pub struct Stopwatch {
    own: Duration,
    wall: Instant,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { own: thread_time(), wall: Instant::now() }
    }

    pub fn stop(self, latency: &mut Latency) {
        let (wall, own) = (self.wall.elapsed(), thread_time());
        latency.wall.record(wall);
        latency.own.record(own.saturating_sub(self.own));
    }
}

/// Time that this thread has had a core.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
