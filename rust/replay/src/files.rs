//! Snapshots that are damaged, cut short by a full disk, or taken while writers write; rings whose writer was stopped.
use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use crate::buffer::{Buffer, Config};
use crate::error::{Error, Result};
use crate::header::{self, crc};
use crate::layout::{Column, DType};
use crate::snapshot;

/// Bytes of a large row: three of them make a run.
const LARGE: usize = 1 << 20;

fn config(num_envs: usize, length: usize, bytes: usize) -> Config {
    let column = |name: &str, dtype, shape: &[usize]| Column { name: name.into(), dtype, shape: shape.into() };
    let columns = vec![column("achieved_goal", DType::U64, &[]), column("bytes", DType::U8, &[bytes])];
    Config { num_envs, capacity: num_envs * length, columns, seed: 7, check_finite: true, threads: 1 }
}

/// Adds row `t` to every environment. Every fifth one begins a trajectory.
fn add(buffer: &Buffer, t: u64) {
    let envs = buffer.config().num_envs;
    let ids: Vec<u8> = (0..envs as u64).flat_map(|env| (env << 32 | t).to_ne_bytes()).collect();
    let bytes = vec![t.to_ne_bytes()[0]; envs * buffer.layout().fields()[1].bytes];
    buffer.add(1, &[&ids, &bytes], &vec![u8::from(t.is_multiple_of(5)); envs]).unwrap();
}

fn filled(config: Config, rows: u64) -> Buffer {
    let buffer = Buffer::new(config).unwrap();
    (0..rows).for_each(|t| add(&buffer, t));
    buffer
}

/// A file that is gone when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("crl-replay-files-{name}-{}", std::process::id())))
    }

    fn load(&self, data: &[u8]) -> Result<Buffer> {
        fs::write(&self.0, data).unwrap();
        Buffer::load(&self.0, 1)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn io_error(source: io::Error) -> Error {
    Error::Io { path: PathBuf::new(), source }
}

fn saved(buffer: &Buffer) -> Vec<u8> {
    let mut data = Vec::new();
    snapshot::write(buffer, &mut data, io_error).unwrap();
    data
}

/// The rows of each environment, from the oldest to the newest, and their trajectories.
fn rows(buffer: &Buffer, env: usize) -> Vec<(u64, u64)> {
    let (rings, field) = (&buffer.rings, buffer.layout().fields()[0]);
    let mut places: Vec<_> = (0..rings.length()).filter_map(|slot| rings.find(env, slot)).collect();
    places.sort_by_key(|place| place.t);
    let row = |place: &crate::ring::Place| {
        let mut id = [0; 8];
        rings.read(rings.record(*place), field, &mut id);
        (u64::from_ne_bytes(id) & 0xFFFF_FFFF, rings.trajectory(env, place.slot))
    };
    places.iter().map(row).collect()
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_and_located() {
    let good = saved(&filled(config(2, 3, 1), 4));
    let file = Temporary::new("flips");
    file.load(&good).unwrap();
    let flip = |bit: usize| {
        let mut data = good.clone();
        data[bit / 8] ^= 1 << (bit % 8);
        data
    };
    let flips = (0..good.len() * 8).map(flip);
    let cuts = (0..good.len()).map(|length| good[..length].to_vec());
    for (index, data) in flips.chain(cuts).chain([[&good[..], &[0]].concat(), good.repeat(2)]).enumerate() {
        let Err(Error::Corrupt { what, .. }) = file.load(&data) else { panic!("altered file {index} was loaded") };
        let places = ["header", "block ", "format version", "not a saved buffer"];
        assert!(places.iter().any(|place| what.starts_with(place)), "{what}");
    }
}

#[test]
fn a_full_disk_at_any_byte_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.0);
            self.0 -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let buffer = filled(config(2, 3, 1), 4);
    let size = saved(&buffer).len();
    for room in 0..size {
        let result = snapshot::write(&buffer, Full(room), io_error);
        assert!(matches!(result, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull));
    }
    snapshot::write(&buffer, Full(size), io_error).unwrap();
}

#[test]
fn a_buffer_that_cannot_be_saved_leaves_the_old_file_alone() {
    let folder = Temporary::new("folder");
    fs::create_dir(&folder.0).unwrap();
    let path = folder.0.join("b");
    fs::create_dir(&path).unwrap(); // A file cannot take the name of a folder.
    assert!(matches!(filled(config(1, 3, 1), 2).save(&path), Err(Error::Io { path: told, .. }) if told == path));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    fs::remove_dir_all(&folder.0).unwrap();
}

/// Adds rows to the buffer at the first block that it is given.
struct Meanwhile<'a> {
    buffer: &'a Buffer,
    rows: RefCell<Option<std::ops::Range<u64>>>,
    data: Vec<u8>,
}

impl Write for Meanwhile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > snapshot::BLOCK {
            self.rows.take().into_iter().flatten().for_each(|t| add(self.buffer, t));
        }
        self.data.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn rows_that_come_meanwhile_are_not_saved_and_those_they_overwrite_are_left_out() {
    // When the first block is full, two runs of three rows were copied. A gap hides all before it.
    let cases = [(12, 30, 0, 12), (12, 30, 6, 12), (12, 30, 7, 5), (12, 30, 11, 1), (20, 9, 9, 9)];
    for (length, before, meanwhile, left) in cases {
        let buffer = filled(config(1, length, LARGE), before);
        let rows_before = rows(&buffer, 0);
        let mut out = Meanwhile { buffer: &buffer, rows: Some(before..before + meanwhile).into(), data: Vec::new() };
        snapshot::write(&buffer, &mut out, io_error).unwrap();
        assert_eq!((out.rows.into_inner(), buffer.rows_written()), (None, before + meanwhile));
        let file = Temporary::new("meanwhile");
        let loaded = file.load(&out.data).unwrap();
        let kept = rows(&loaded, 0);
        assert_eq!(kept.len(), left);
        let expected = &rows_before[rows_before.len() - kept.len()..];
        assert!(kept.iter().map(|row| row.0).eq(expected.iter().map(|row| row.0)));
        let steps = |rows: &[(u64, u64)]| rows.windows(2).map(|pair| pair[1].1 - pair[0].1).collect::<Vec<_>>();
        assert_eq!(steps(&kept), steps(expected));
        // And it goes on.
        for t in before..=before + length as u64 {
            add(&loaded, t);
            let ids: Vec<_> = rows(&loaded, 0).iter().map(|row| row.0).collect();
            assert!(ids.is_sorted_by(|a, b| a + 1 == *b) && ids.last() == Some(&t));
        }
    }
}

#[test]
fn a_writer_that_laps_the_copy_is_an_error() {
    let buffer = filled(config(1, 12, LARGE), 12);
    let mut out = Meanwhile { buffer: &buffer, rows: Some(12..24).into(), data: Vec::new() };
    let saved = snapshot::write(&buffer, &mut out, io_error);
    assert!(matches!(saved, Err(Error::Busy(what)) if what.starts_with("save: env 0")));
}

#[test]
fn version_1_is_read() {
    for written in [0, 2, 3, 7] {
        let buffer = filled(config(2, 3, 1), written);
        let mut data = header::encode(*b"CRLBUF\r\n", 1, buffer.config(), 5);
        let mut block = Vec::new();
        for env in 0..2 {
            block.extend(written.to_le_bytes());
            let mut before = None;
            for (t, trajectory) in rows(&buffer, env) {
                block.push(u8::from(before.replace(trajectory) != Some(trajectory)));
                block.extend(((env as u64) << 32 | t).to_ne_bytes());
                block.push(t.to_ne_bytes()[0]);
            }
        }
        for (index, block) in [(0, &block[..]), (1, &[])] {
            data.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            data.extend(crc(index, block).to_le_bytes());
            data.extend(block);
        }
        let loaded = Temporary::new("version").load(&data).unwrap();
        assert_eq!((loaded.next_batch(), loaded.rows_written()), (5, buffer.rows_written()));
        assert_eq!(saved(&filled(config(2, 3, 1), written))[60..], saved(&loaded)[60..]);
    }
}

/// Time that this thread has worked.
#[cfg(target_os = "linux")]
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds of a second"))
}

#[cfg(not(target_os = "linux"))]
fn worked() -> Duration {
    static STARTED: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    STARTED.elapsed()
}

#[test]
fn headers_that_ask_for_too_much_are_refused_at_once() {
    let sealed = |header: &[u8]| {
        let length = u32::try_from(header.len()).unwrap();
        let preamble =
            [b"CRLBUF\r\n".as_slice(), &2_u32.to_le_bytes(), &length.to_le_bytes(), &crc(0, header).to_le_bytes()];
        [&preamble.concat(), header].concat()
    };
    let good = header::encode(*b"CRLBUF\r\n", 2, &config(1, 3, 1), 0)[header::PREAMBLE..].to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut header = good.clone();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        sealed(&header)
    };
    let huge = u64::MAX.to_le_bytes();
    let last = good.len() - 8; // The one axis of the last column.
    let hostile = [
        with(20, &huge),                                               // num_envs
        with(28, &huge),                                               // capacity
        with(28, &(1_u64 << 40).to_le_bytes()),                        // the same, of a size that there is
        with(37, &u16::MAX.to_le_bytes()),                             // columns
        with(39, &u16::MAX.to_le_bytes()),                             // length of a name
        with(last, &huge),                                             // an axis
        with(last, &(1_u64 << 29).to_le_bytes()),                      // rows of half a GiB, of which there are none
        with(last - 1, &[255]),                                        // axes
        with(last - 2, &[12]),                                         // dtype
        sealed(&[&good[..37], &[0, 1], &vec![0; 1_000_000]].concat()), // many columns
        sealed(&vec![0; 2_000_000]),
        sealed(&[&good[..], &[0]].concat()),
        sealed(&[]),
    ];
    let file = Temporary::new("hostile");
    for (index, data) in hostile.iter().enumerate() {
        fs::write(&file.0, data).unwrap();
        let refuse = || {
            let started = worked();
            let refused = Buffer::load(&file.0, 1);
            assert!(matches!(refused, Err(Error::Corrupt { .. } | Error::Memory(_))), "header {index}");
            worked().saturating_sub(started)
        };
        // The fastest of some: where it is no clock of the thread's own, other programs take time too.
        let took = (0..5).map(|_| refuse()).min().unwrap();
        assert!(took.as_millis() < 100, "header {index}: {took:?}");
    }
}

#[test]
fn a_ring_whose_writer_was_stopped_in_a_row_goes_on() {
    for begins in [false, true] {
        for written in [0, 1, 2, 3, 8, 10] {
            let path = Temporary::new("stopped");
            let open = || Buffer::open(&path.0, config(1, 3, 1)).unwrap();
            let buffer = open();
            (0..written).for_each(|t| add(&buffer, t));
            let stop = || buffer.rings.push(0, begins, |_| panic!("stopped"));
            assert!(catch_unwind(AssertUnwindSafe(stop)).is_err());
            let trajectories = buffer.trajectories();
            drop(buffer);
            let buffer = open();
            assert_eq!((buffer.rows_written(), buffer.trajectories()), (written, trajectories));
            let loaded = Temporary::new("stopped-saved").load(&saved(&buffer)).unwrap();
            assert_eq!(loaded.rows(), written.min(2), "the oldest row is half overwritten");
            for t in written..written + 6 {
                add(&buffer, t);
                assert_eq!(rows(&buffer, 0).last().unwrap().0, t);
            }
            assert_eq!(buffer.trajectories(), rows(&buffer, 0)[2].1 - rows(&buffer, 0)[0].1 + 1);
        }
    }
}
