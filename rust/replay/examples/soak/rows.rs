//! Rows that tell what they are: lane, number and trajectory, and a checksum over every column.
use crl_replay::layout::{Column, DType};

/// Columns of the size of an ant's; the first is no multiple of a word.
const COLUMNS: [(&str, DType, usize); 4] = [
    ("observation", DType::F32, 29),
    ("action", DType::F32, 8),
    ("achieved_goal", DType::U64, 2),
    ("mark", DType::U64, 1),
];
/// Rows of consecutive trajectories, over and over. Lane 0 is one trajectory without end.
const LENGTHS: [u16; 8] = [1, 2, 37, 5, 250, 1, 80, 12];

/// The columns of a row.
pub fn columns() -> Vec<Column> {
    COLUMNS.map(|(name, dtype, n)| Column { name: name.into(), dtype, shape: vec![n] }).into()
}

/// The columns of a row, the next and the goal, as a sampler asks for them.
pub fn names() -> Vec<String> {
    let of = |prefix: &str| COLUMNS.map(|(name, ..)| format!("{prefix}{name}"));
    [of(""), of("next_"), of("goal_")].concat()
}

/// The number of the trajectory of row `number` of a lane.
pub fn trajectory(lane: u64, number: u64) -> u64 {
    if lane == 0 {
        return 0;
    }
    let cycle = LENGTHS.iter().map(|length| u64::from(*length)).sum::<u64>();
    // Lanes are out of step, so that trajectories end at different rows.
    let at = number + 13 * lane;
    let mut within = at % cycle;
    let before = LENGTHS.iter().take_while(|length| {
        let passed = within >= u64::from(**length);
        within = within.saturating_sub(u64::from(**length));
        passed
    });
    at / cycle * LENGTHS.len() as u64 + before.count() as u64
}

/// Whether row `number` of a lane is the first of its trajectory.
pub fn starts(lane: u64, number: u64) -> bool {
    number == 0 || trajectory(lane, number) != trajectory(lane, number - 1)
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// A checksum in which every byte and its place count.
fn checksum<'a>(columns: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0;
    for column in columns {
        let (words, rest) = column.as_chunks::<8>();
        hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_ne_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = mix(hash, u64::from_ne_bytes(last));
    }
    hash
}

/// Appends row `number` of a lane to the columns of an `add`.
pub fn append(lane: u64, number: u64, columns: &mut [Vec<u8>; 4]) {
    let starts = columns.each_ref().map(Vec::len);
    let [observation, action, achieved_goal, _] = columns;
    let mut hash = mix(lane + 1, number);
    for (column, (.., floats)) in [(observation, COLUMNS[0]), (action, COLUMNS[1])] {
        for _ in 0..floats {
            hash = mix(hash, 1);
            // Finite, and of all magnitudes up to 2¹⁶.
            let bytes = hash.to_ne_bytes();
            column.extend(f32::from(u16::from_ne_bytes([bytes[0], bytes[1]])).to_ne_bytes());
        }
    }
    achieved_goal.extend([lane << 40 | number, trajectory(lane, number)].map(u64::to_ne_bytes).as_flattened());
    let row = [&columns[0][starts[0]..], &columns[1][starts[1]..], &columns[2][starts[2]..]];
    let sum = checksum(row);
    columns[3].extend(sum.to_ne_bytes());
}

/// What a whole row says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    pub lane: u64,
    pub number: u64,
}

impl Id {
    pub fn trajectory(self) -> u64 {
        trajectory(self.lane, self.number)
    }
}

/// The row in four columns, if it is whole.
pub fn read(columns: [&[u8]; 4]) -> Option<Id> {
    let word = |bytes: &[u8]| Some(u64::from_ne_bytes(*bytes.first_chunk()?));
    let whole = word(columns[3])? == checksum(columns[..3].iter().copied());
    let (name, trajectory) = (word(columns[2])?, word(&columns[2][8..])?);
    let id = Id { lane: name >> 40, number: name & ((1 << 40) - 1) };
    (whole && trajectory == id.trajectory()).then_some(id)
}
