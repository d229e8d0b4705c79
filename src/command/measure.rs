//! Measuring: what `demo`, `bench` and `fsync-test` have in common.
//!
//! ```text
//! workplace    a directory to work in, and what in it is ours to remove
//! machine      what is measured on: processor, memory, kernel, file system, block device
//! device       the device's own rate of single durable 4 KiB overwrites
//! drive        threads that do one thing again and again, on request at given moments (schedule)
//! latency · series · usage     what is kept of that: how long, how many when, at which cost
//! random · skew · units        keys and values, some more often than others · durations and sizes as people write them
//! ```
//!
//! A figure of a store means little without the device's own, taken in the same run.

pub(crate) mod device;
pub(crate) mod drive;
pub(crate) mod latency;
pub(crate) mod machine;
pub(crate) mod random;
pub(crate) mod schedule;
pub(crate) mod series;
pub(crate) mod skew;
pub(crate) mod units;
pub(crate) mod usage;
pub(crate) mod workplace;
