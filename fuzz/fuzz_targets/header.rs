//! A header of any bytes: parsing neither panics nor takes more memory than there are bytes, and both ways of reading
//! agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_core::header::Header;

fuzz_target!(|data: &[u8]| {
    let parsed = Header::parse(data);
    let read = Header::read(&mut &data[..]);
    match (&parsed, &read) {
        (Ok(parsed), Ok(read)) => {
            assert_eq!(parsed.sections(), read.sections());
            assert_eq!(parsed.bytes(), &data[..parsed.prelude().header_len as usize]);
            assert!(parsed.stanzas().count() >= 1);
            let _ = parsed.signature();
        }
        (Err(parsed), Err(read)) => assert_eq!(parsed.rule(), read.rule()),
        _ => panic!("one reader takes it, the other does not"),
    }
});
