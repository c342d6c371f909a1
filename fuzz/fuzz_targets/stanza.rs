//! Sections of any bytes under a right commitment and MAC, and an identity that tries them. There is no passphrase: a
//! stanza of lawful cost would keep the fuzzer busy with Argon2.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::artifact::{BrokerSeed, DataKey};
use mvault_tests::fuzz::{self, Base};
use std::sync::LazyLock;
use vault_core::header::Header;
use vault_core::recipient::broker::BrokerKey;
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::secret::Secret;

static BASE: LazyLock<(Base, XWingIdentity, BrokerSeed)> =
    LazyLock::new(|| (Base::new(), fuzz::identity(), BrokerSeed(BrokerKey::new(fuzz::identity()))));

fuzz_target!(|data: &[u8]| {
    let (base, identity, broker) = &*BASE;
    let Some(bytes) = base.stanza(data) else { return };
    let Ok(header) = Header::parse(&bytes) else { return };
    let data_key = DataKey(Secret::take(&mut fuzz::DATA_KEY.to_vec()));
    if let Ok(unlocked) = header.unlock(&[&data_key, broker, identity]) {
        assert!(unlocked.stanza() < header.stanzas().count());
        assert!(unlocked.about().is_none_or(|a| !a.name.contains('/')));
    }
});
