use super::*;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Serve = dyn Fn(UnixStream, usize) + Send + Sync;

/// Each connection is one end of a pair; the other is served with its number.
struct Pairs(Arc<Serve>, AtomicUsize);

impl std::fmt::Debug for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pairs")
    }
}

impl Dial for Pairs {
    fn dial(&self) -> io::Result<Box<dyn Connection>> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_millis(500)))?;
        let (serve, number) = (Arc::clone(&self.0), self.1.fetch_add(1, Ordering::SeqCst));
        std::thread::spawn(move || serve(theirs, number));
        Ok(Box::new(ours))
    }
}

fn pairs(serve: impl Fn(UnixStream, usize) + Send + Sync + 'static) -> Pairs {
    Pairs(Arc::new(serve), AtomicUsize::new(0))
}

fn payload() -> Vec<u8> {
    (0..3_000_001_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap_or_default()).collect()
}

fn honest(mut stream: UnixStream) {
    let payload = payload();
    let _ = answer(&mut stream, b"header", &payload, payload.len() as u64);
}

#[test]
fn any_range_is_the_objects() {
    let (dial, all) = (pairs(|stream, _| honest(stream)), payload());
    let remote = Remote::open(&dial, What::Payload).unwrap();
    assert_eq!(remote.len(), all.len() as u64);
    for (offset, len) in
        [(0, 0), (0, 1), (7, 100_000), (1_048_575, 2), (0, all.len()), (all.len(), 0), (all.len() - 5, 5)]
    {
        let mut found = vec![0; len];
        remote.read_exact_at(&mut found, offset as u64).unwrap();
        assert!(found == all[offset..offset + len], "{offset} {len}");
    }
    let mut header = [0; 6];
    Remote::open(&dial, What::Header).unwrap().read_exact_at(&mut header, 0).unwrap();
    assert_eq!(&header, b"header");
}

#[test]
fn bytes_past_the_end_are_not_asked_for() {
    let dial = pairs(|stream, _| honest(stream));
    let remote = Remote::open(&dial, What::Payload).unwrap();
    for offset in [remote.len() - 1, remote.len(), u64::MAX] {
        assert_eq!(remote.read_exact_at(&mut [0; 2], offset).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(dial.1.load(Ordering::SeqCst), 1);
}

#[test]
fn cut_connections_are_opened_anew() {
    // Two of three connections end after some bytes of an answer.
    let dial = pairs(|mut stream, number| {
        if number % 3 == 2 {
            return honest(stream);
        }
        let _ = stream.read_exact(&mut [0; 16]);
        let _ = stream.write_all(&3_000_001_u64.to_be_bytes()[..4 + number % 5]);
    });
    let remote = Remote::open(&dial, What::Payload).unwrap();
    let mut found = vec![0; 2_000_000];
    remote.read_exact_at(&mut found, 5).unwrap();
    assert!(found == payload()[5..2_000_005]);
}

#[test]
fn a_parent_that_never_answers_right_is_given_up() {
    let closing = pairs(|stream, _| drop(stream));
    assert!(Remote::open(&closing, What::Header).is_err());
    assert_eq!(closing.1.load(Ordering::SeqCst), ATTEMPTS as usize);
}

#[test]
fn a_length_that_changes_is_refused() {
    let dial = pairs(|mut stream, number| {
        let all = payload();
        let _ = answer(&mut stream, b"", &all, all.len() as u64 - u64::from(number > 0));
    });
    let remote = Remote::open(&dial, What::Payload).unwrap();
    remote.read_exact_at(&mut [0; 4], 0).unwrap(); // the first connection still
    remote.lock().clear();
    assert!(remote.read_exact_at(&mut [0; 4], 0).unwrap_err().to_string().contains("its length changed"));
}

#[test]
fn requests_of_no_form_end_the_connection() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || answer(&mut { theirs }, b"h", &Vec::<u8>::new(), 0));
    ours.write_all(&[9; 16]).unwrap();
    assert_eq!(serving.join().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
}
