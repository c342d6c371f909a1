//! How large parts are and how many are in flight: within S3's limits (10,000 parts, 5 MiB to 5 GiB each, 5 TiB an
//! object) and within the memory that mvault may take. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

use vault_core::geometry::Chunking;

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
/// Largest part that is kept in memory until it is sent: four are.
const LARGEST_KEPT: u64 = 48 * MIB;
/// Smallest part, unless it is the last one.
const SMALLEST: u64 = 5 * MIB;
/// An upload of unknown size begins with this many parts of the usual size, then grows.
const STEP: u32 = 1000;

/// Part sizes of one upload: whole chunks. The same numbers give the same cuts, so that an interrupted upload can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of a part; 0 for an upload of unknown size, whose parts grow.
    size: u64,
    /// Bytes of a sealed chunk.
    chunk: u64,
}

impl Plan {
    /// For an object of about `len` bytes, or of unknown length, in chunks of `chunk_size` bytes of plaintext. Parts have
    /// about `asked` bytes, if that is said, or more where there would be too many. `None` if it is too large for a store.
    pub fn new(len: Option<u64>, chunk_size: u32, asked: Option<u64>) -> Option<Self> {
        let plan = Self::of_size(0, chunk_size);
        let asked = asked.map(|size| plan.whole_chunks(size).max(SMALLEST.next_multiple_of(plan.chunk)));
        let Some(len) = len else {
            let size = asked.map_or(0, |size| size.min(plan.whole_chunks(LARGEST_KEPT)));
            return Some(Self { size, ..plan });
        };
        // Room for table, tags and manifest is in the rounding and in the parts left over.
        let least = len.div_ceil(MAX_PARTS - 100).next_multiple_of(MIB).next_multiple_of(plan.chunk);
        let size = least.max(asked.unwrap_or(plan.whole_chunks(USUAL)));
        (len <= MAX_OBJECT).then_some(Self { size, ..plan })
    }

    /// As recorded.
    pub fn of_size(size: u64, chunk_size: u32) -> Self {
        Self { size, chunk: Chunking::new(chunk_size).sealed() as u64 }
    }

    /// Bytes of a sealed chunk.
    pub fn chunk(self) -> usize {
        usize::try_from(self.chunk).unwrap_or(usize::MAX)
    }

    /// At most so many bytes of whole chunks.
    fn whole_chunks(self, bytes: u64) -> u64 {
        bytes / self.chunk * self.chunk
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
        let (mut offset, mut left, mut most) = (0, number - 1, USUAL);
        loop {
            let size = self.whole_chunks(most);
            let here = if most >= LARGEST_KEPT { left } else { left.min(STEP) };
            offset += u64::from(here) * size;
            left -= here;
            if left == 0 && (here < STEP || most >= LARGEST_KEPT) {
                return (offset, size);
            }
            most = (most + USUAL).min(LARGEST_KEPT);
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

    /// Whether parts are too large to be kept until they are sent, and are made again then, if they can be.
    pub fn is_made_again(self) -> bool {
        self.size > LARGEST_KEPT
    }

    /// Parts in memory at once.
    pub fn in_flight(self) -> usize {
        let size = if self.size == 0 { LARGEST_KEPT } else { self.size };
        usize::try_from((MEMORY / size).clamp(1, MOST_IN_FLIGHT)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_limits_of_s3_and_of_memory() {
        for len in [0, 1, USUAL, 1 << 30, 100 << 30, 1 << 40, 2 << 40, 2_600_000_000_000, MAX_OBJECT - 1, MAX_OBJECT] {
            for asked in [None, Some(0), Some(5 * MIB), Some(100 * MIB), Some(1 << 30)] {
                let plan = Plan::new(Some(len), 16_384, asked).unwrap();
                let (_, size) = plan.part(1);
                assert!(len.div_ceil(size) <= MAX_PARTS - 100, "{len} {asked:?}");
                assert!((5 * MIB..=5 << 30).contains(&size), "{len} {asked:?}: {size}");
                let memory = size * plan.in_flight() as u64;
                assert!(memory <= 192 * MIB || plan.is_made_again(), "{len} {asked:?}: {memory}");
            }
        }
        assert!(!Plan::new(Some(400 << 30), 16_384, None).unwrap().is_made_again());
        assert!(Plan::new(Some(MAX_OBJECT + 1), 16_384, None).is_none());
        for asked in [None, Some(1 << 30)] {
            let piped = Plan::new(None, 16_384, asked).unwrap();
            assert!(!piped.is_made_again() && piped.in_flight() >= 4, "a pipe cannot be read again");
        }
    }

    #[test]
    fn parts_of_unknown_size_grow_and_do_not_overlap() {
        let plan = Plan::new(None, 65_536, None).unwrap();
        let mut at = 0;
        for number in 1..=10_000 {
            let (offset, size) = plan.part(number);
            assert_eq!(offset, at, "{number}");
            assert_eq!(plan.locate(offset), number);
            assert_eq!(plan.locate(offset + size - 1), number);
            assert!(size <= LARGEST_KEPT);
            at += size;
        }
        assert!(at > 400 << 30);
    }
}
