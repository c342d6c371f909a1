//! How large parts are and how many are in flight: within S3's limits (10,000 parts, 5 MiB to 5 GiB each, 5 TiB an
//! object) and within the memory that mvault may take. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

/// Most parts of an upload.
pub const MAX_PARTS: u64 = 10_000;
/// Largest object: 5 TiB.
pub const MAX_OBJECT: u64 = 5 << 40;
/// Memory for parts in flight, in bytes.
pub const MEMORY: u64 = 192 << 20;
/// Parts in flight at most.
pub const MOST_IN_FLIGHT: u64 = 8;

const MIB: u64 = 1 << 20;
/// Parts of most uploads.
const USUAL: u64 = 16 * MIB;
/// Largest part of an upload whose size is not known: four are in memory.
const LARGEST_UNSIZED: u64 = 48 * MIB;
/// An upload of unknown size begins with this many parts of the usual size, then grows.
const STEP: u32 = 1000;

/// Part sizes of one upload. The same numbers give the same cuts, so that an interrupted upload can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of a part; 0 for an upload of unknown size, whose parts grow.
    size: u64,
}

impl Plan {
    /// For an object of about `len` bytes, or of unknown length. `None` if it is too large for a store.
    pub fn new(len: Option<u64>) -> Option<Self> {
        let Some(len) = len else { return Some(Self { size: 0 }) };
        // Room for table, tags and manifest is in the rounding and in the parts left over.
        let least = len.div_ceil(MAX_PARTS - 100).next_multiple_of(MIB);
        (len <= MAX_OBJECT).then_some(Self { size: least.max(USUAL) })
    }

    /// As recorded.
    pub fn of_size(size: u64) -> Self {
        Self { size }
    }

    /// As recorded.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Offset and length of part `number`, from 1 on.
    pub fn part(self, number: u32) -> (u64, u64) {
        if self.size > 0 {
            return (u64::from(number - 1) * self.size, self.size);
        }
        let (mut offset, mut left, mut size) = (0, number - 1, USUAL);
        loop {
            let here = if size >= LARGEST_UNSIZED { left } else { left.min(STEP) };
            offset += u64::from(here) * size;
            left -= here;
            if left == 0 && (here < STEP || size >= LARGEST_UNSIZED) {
                return (offset, size);
            }
            size = (size + USUAL).min(LARGEST_UNSIZED);
        }
    }

    /// The part that holds `offset`.
    pub fn locate(self, offset: u64) -> u32 {
        if let Some(part) = offset.checked_div(self.size) {
            return u32::try_from(part).unwrap_or(u32::MAX - 1) + 1;
        }
        let (mut low, mut high) = (1, u32::try_from(MAX_PARTS).unwrap_or(u32::MAX) * 4);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if self.part(middle).0 <= offset { low = middle } else { high = middle }
        }
        low
    }

    /// Parts in memory at once.
    pub fn in_flight(self) -> usize {
        let size = if self.size == 0 { LARGEST_UNSIZED } else { self.size };
        usize::try_from((MEMORY / size).clamp(1, MOST_IN_FLIGHT)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_limits_of_s3_and_of_memory() {
        for len in [0, 1, USUAL, 1 << 30, 100 << 30, 1 << 40, 2 << 40, 2_600_000_000_000, MAX_OBJECT - 1, MAX_OBJECT] {
            let plan = Plan::new(Some(len)).unwrap();
            let (_, size) = plan.part(1);
            assert!(len.div_ceil(size) <= MAX_PARTS - 100, "{len}");
            assert!((5 * MIB..=5 << 30).contains(&size));
            let memory = size * plan.in_flight() as u64;
            // Above 2.6 TB one part is more than that; docs/OPERATIONS.md says so.
            let most = if len <= 2_600_000_000_000 { 256 * MIB } else { 530 * MIB };
            assert!(memory <= most, "{len}: {memory}");
        }
        assert!(Plan::new(Some(MAX_OBJECT + 1)).is_none());
    }

    #[test]
    fn parts_of_unknown_size_grow_and_do_not_overlap() {
        let plan = Plan::new(None).unwrap();
        let mut at = 0;
        for number in 1..=10_000 {
            let (offset, size) = plan.part(number);
            assert_eq!(offset, at, "{number}");
            assert_eq!(plan.locate(offset), number);
            assert_eq!(plan.locate(offset + size - 1), number);
            assert!(size <= LARGEST_UNSIZED);
            at += size;
        }
        assert!(at > 400 << 30);
    }
}
